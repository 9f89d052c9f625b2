// Kube runs real Kubernetes around the crid of this source tree, on this machine alone:
//
//	go run ./hack/kube up         a cluster of one node, left running (make cluster)
//	go run ./hack/kube status     what runs of it
//	go run ./hack/kube stop       ends its servers; pods go on, and the next up finds them
//	go run ./hack/kube reset      removes pods, network, cgroups and files
//	go run ./hack/kube kubelet    a kubelet without a cluster runs static pods, shows them and removes them; nothing stays (make kubelet)
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("say up, status, stop, reset or kubelet")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("containers need root")
	}
	switch args[0] {
	case "up":
		return up(ctx)
	case "status":
		return status(ctx)
	case "stop":
		return halt()
	case "reset":
		return reset(ctx)
	case "kubelet":
		return standalone(ctx)
	}
	return fmt.Errorf("no such command: %s", args[0])
}
