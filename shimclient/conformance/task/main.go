// Command task is what the containers of the conformance suite run. It is built
// without cgo, so that a rootfs needs nothing else.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		os.Exit(64)
	}
	switch args[0] {
	case "sleep": // until killed; SIGTERM ends it with 143 as it would any program
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		<-c
		os.Exit(143)
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(args[1])
		os.Exit(n)
	case "echo":
		fmt.Println(args[1])
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
	}
}
