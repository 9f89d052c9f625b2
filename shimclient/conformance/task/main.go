// Command task is what the containers of the conformance suite run. It is built
// without cgo, so that a rootfs needs nothing else.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

func init() { runtime.LockOSThread() } // main is the thread of which the kernel shows the name

// ready tells who looks from outside that signals are now heeded as said.
func ready() {
	name := [16]byte{'r', 'e', 'a', 'd', 'y'}
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0)
}

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		os.Exit(64)
	}
	switch args[0] {
	case "sleep": // until killed; SIGTERM ends it with 143 as it would any program
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		ready()
		<-c
		os.Exit(143)
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		ready()
		time.Sleep(time.Hour)
	case "exit":
		n, _ := strconv.Atoi(args[1])
		os.Exit(n)
	case "read": // hangs if whoever serves the file does not answer
		f, err := os.Open(args[1])
		if err == nil {
			_, err = syscall.Read(int(f.Fd()), make([]byte, 1))
		}
		if err != nil {
			os.Exit(1)
		}
	case "echo":
		fmt.Println(args[1])
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			os.Exit(1)
		}
	}
}
