// Images makes and serves the project's own test images; see the kit package.
//
//	go run ./e2e/images build                    compile the programs in them (once)
//	go run ./e2e/images list                     names and digests
//	go run ./e2e/images save [-o FILE] [NAME]    one image as an archive; default the demo image
//	go run ./e2e/images serve [-addr HOST:PORT] [-certs DIR] [-heavy]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/crid-project/crid/e2e/images/kit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say build, list, save or serve")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:5010", "where to serve")
	certs := flags.String("certs", "", "also make this a certs.d folder for a runtime")
	out := flags.String("o", "demo.tar", "file to save to")
	heavy := flags.Bool("heavy", false, "with the images of the benchmarks")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	programs, err := kit.Build(ctx)
	if err != nil || args[0] == "build" {
		return err
	}
	images, err := programs.Catalogue(*heavy)
	if err != nil {
		return err
	}
	switch args[0] {
	case "list":
		return list(images)
	case "save":
		ref := kit.Demo
		if flags.NArg() > 0 {
			ref = flags.Arg(0)
		}
		image, err := kit.Find(images, ref)
		if err != nil {
			return err
		}
		return kit.Save(*out, ref, image)
	case "serve":
		return serve(ctx, *addr, *certs, images)
	}
	return fmt.Errorf("no such command: %s", args[0])
}

func list(images []kit.Image) error {
	for _, i := range images {
		digest, err := i.Digest()
		if err != nil {
			return err
		}
		for _, n := range i.Names {
			fmt.Println(digest, n)
		}
	}
	return nil
}

func serve(ctx context.Context, addr, certs string, images []kit.Image) error {
	registry, err := kit.Serve(ctx, addr, images, nil)
	if err != nil {
		return err
	}
	defer registry.Close()
	if certs != "" {
		if err := kit.WriteHosts(certs, registry.Addr); err != nil {
			return err
		}
	}
	fmt.Println("serving on", registry.Addr)
	<-ctx.Done()
	return nil
}
