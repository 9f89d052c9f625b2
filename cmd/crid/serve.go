package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	ownmemory "github.com/crid-project/crid/cmd/crid/memory"
	"github.com/crid-project/crid/server"
	"github.com/crid-project/crid/server/admin"
	"github.com/crid-project/crid/server/metrics"
	"github.com/crid-project/crid/server/socket"
)

func init() { Serve = serve }

// serve wires the parts, brings the records in line with the kernel, answers,
// and then takes up the shims of an earlier run.
func serve(ctx context.Context, d Daemon) error {
	takeLogs(d.Log)
	n, err := newNode(d)
	if err != nil {
		return err
	}
	defer n.close()
	n.reconciler.Recover(ctx)

	srv := server.New(n.serverConfig())
	n.eventsDropped, n.eventStreams, n.stuckReads = srv.EventsDropped, srv.EventStreams, srv.StuckReads
	l, err := socket.Listen(d.Config.Address, 0o660)
	if err != nil {
		return fmt.Errorf("listen for CRI: %w", err)
	}
	adm, err := socket.Listen(d.Config.AdminSocket(), 0o600)
	if err != nil {
		_ = l.Close()
		return fmt.Errorf("listen for the command line: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Serve(gctx, l) })
	g.Go(func() error { return n.streams.Serve(gctx) })
	g.Go(func() error { return n.host.Serve(gctx) })
	g.Go(func() error { return metrics.Serve(gctx, adm, admin.Handler(n.adminDeps(d)), 0) })
	g.Go(func() error { return n.serveMetrics(gctx, d.Config.Metrics.Address) })
	g.Go(func() error { n.networks.Watch(gctx); return nil })
	g.Go(func() error { n.reconciler.Hear(gctx, n.host.Events()); return nil })
	g.Go(func() error { n.reconciler.Audit(gctx); return nil })
	g.Go(func() error {
		if err := n.reconciler.WatchMounts(gctx); err != nil {
			d.Log.Error("the mount table is not watched; a namespace unmounted from outside will be found late", "err", err)
		}
		return nil
	})
	g.Go(func() error { n.takeReloads(gctx, d.Reloads); return nil })
	g.Go(func() error { ownmemory.Tidy(gctx); return nil })
	g.Go(func() error {
		n.reconciler.Settle(gctx)
		d.Log.Info("everything of an earlier run is taken up", "pods", len(n.ledger.Pods()), "containers", len(n.ledger.Containers()))
		return nil
	})
	d.Log.Info("crid answers", "address", d.Config.Address, "pods", len(n.ledger.Pods()))
	d.Ready("answering on " + d.Config.Address)
	return g.Wait()
}

// serveMetrics is left out with an empty address. A port that is taken must not
// keep pods from running: it is reported.
func (n *node) serveMetrics(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	l, err := metrics.Listen(address)
	if err != nil {
		n.log.Error("no metrics: set metrics.address to a free address, or to \"\"", "err", err)
		return nil
	}
	return n.metrics.Serve(ctx, l)
}

// adminDeps is what the admin socket offers.
func (n *node) adminDeps(d Daemon) admin.Deps {
	return admin.Deps{
		Log: n.log, Level: d.Level,
		State: func() any {
			return map[string]any{"pods": n.ledger.Pods(), "containers": n.ledger.Containers(), "settled": n.reconciler.Settled(),
				"config": d.Config}
		},
		Check: func(context.Context) ([]admin.Finding, error) {
			out := []admin.Finding{}
			for _, f := range n.reconciler.Check() {
				out = append(out, admin.Finding{Name: f.Name, Severity: f.Severity, Message: f.Message})
			}
			if s := n.holder.Status(); s.Err != nil {
				out = append(out, admin.Finding{Name: "output", Severity: "warn",
					Message: fmt.Sprintf("nobody holds containers' output while crid is away; see crid's log: %v", s.Err)})
			}
			return out, nil
		},
		Import: n.importImages,
		Export: func(ctx context.Context, w io.Writer, refs []string) error { return n.images.Export(ctx, w, refs...) },
		Images: func() []admin.Image { return adminImages(n.images.List()) },
	}
}

// close lets go of everything. Shims, containers, namespaces and mounts stay.
func (n *node) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.containers.Close(ctx)
	n.buffers.Close()
	n.holder.Close()
	n.pods.Close(ctx)
	n.flush(ctx)
	n.ledger.Close()
	_ = n.watcher.Close()
	n.streams.Close()
	_ = n.host.Close()
	_ = n.images.Close()
}

// flush waits until the records are on disk.
func (n *node) flush(ctx context.Context) {
	for _, p := range n.ledger.Pods() {
		if err := n.ledger.FlushPod(ctx, p.ID); err != nil {
			n.log.Error("write record", "pod", p.ID, "err", err)
		}
	}
	for _, c := range n.ledger.Containers() {
		if err := n.ledger.FlushContainer(ctx, c.ID); err != nil {
			n.log.Error("write record", "container", c.ID, "err", err)
		}
	}
}
