package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

// Options of a run. None may be zero.
type Options struct {
	Duration time.Duration // of the load; what comes before and after takes about a minute
	Seed     uint64
	Slots    int           // pods at a time
	Life     time.Duration // of a pod, mean
	Storm    time.Duration // of faults between two pauses
	Pace     time.Duration // mean pause between two faults
	Timeline string        // file
	Out      io.Writer     // progress
}

// Run soaks a daemon of its own. Its error tells every law that was broken.
func Run(ctx context.Context, o Options) (err error) {
	line, err := newTimeline(o.Timeline, o.Out)
	if err != nil {
		return err
	}
	defer line.close()
	line.show("soak: seed %d, %s, %d pods at a time; the timeline is %s", o.Seed, o.Duration, o.Slots, o.Timeline)
	n, err := newNode(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			log, e := os.ReadFile(n.home.Log())
			err = errors.Join(err, e, os.WriteFile(o.Timeline+".daemon", log, 0o644))
		}
		err = errors.Join(err, n.remove())
	}()
	k := &kubelet{node: n, timeline: line, known: newKnown(), seed: o.Seed, life: o.Life}
	if err := k.warmUp(ctx); err != nil {
		return err
	}
	before := n.daemon.Census(ctx)
	_, threads, rss := k.gauges(ctx)
	k.load(ctx, o)
	k.finish(ctx, before)
	text, threadsNow, rssNow := k.gauges(ctx)
	k.show("the end: %s; at the beginning: rss %d KiB, %d threads", text, rss, threads)
	if threadsNow > threads+16 || rssNow > rss+24<<10 {
		k.broken("the daemon has grown")
	}
	return k.verdict(o)
}

// load is all that happens between the two counts.
func (k *kubelet) load(ctx context.Context, o Options) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mark(false)
	end := time.Now().Add(o.Duration)
	k.run(ctx, o.Slots)
	k.wait.Go(func() { k.watch(ctx) })
	k.wait.Go(func() { k.listen(ctx) })
	k.wait.Go(func() { k.pull(ctx) })
	m := &monkey{kubelet: k, rng: rand.New(rand.NewPCG(o.Seed, 1)), pace: o.Pace}
	k.pauseAndLook(ctx) // without faults first
	for time.Now().Before(end) && ctx.Err() == nil {
		m.run(ctx, min(o.Storm, time.Until(end)))
		k.pauseAndLook(ctx)
	}
	k.empty.Store(true)
	for deadline := time.Now().Add(90 * time.Second); len(k.desired()) > 0 && ctx.Err() == nil; pause(ctx, 200*time.Millisecond) {
		if time.Now().After(deadline) {
			k.broken("%d pods could not be removed within 90 s, without any fault", len(k.desired()))
			break
		}
	}
	cancel()
	k.wait.Wait()
}

// finish counts what is left.
func (k *kubelet) finish(ctx context.Context, before harness.Census) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if err := k.daemon.RemoveAllPods(ctx); err != nil {
		k.broken("remove what is left: %v", err)
	}
	for _, leak := range k.daemon.Settle(ctx, before, 15*time.Second) {
		if strings.HasPrefix(leak, "+ netns ") || strings.Contains(leak, "times netns ") {
			continue // in /run/netns, where crid has nothing: somebody else's
		}
		k.broken("left behind: %s", leak)
	}
	for _, f := range k.findings(ctx) {
		k.broken("%s", f)
	}
}

// verdict sums up.
func (k *kubelet) verdict(o Options) error {
	k.show("faults: %s", k.tally("fault "))
	k.show("modes of runc and the plugin: %s", k.tally("mode "))
	k.show("done: %s pods, %s sandboxes, %s containers, %s execs, %s logs read, %s pulls", k.tally("pods"), k.tally("sandboxes"), k.tally("containers"), k.tally("execs"), k.tally("logs read"), k.tally("pulls"))
	k.show("exit codes came from: %s; calls failed under faults: %s", k.tally("ended by "), k.tally("error "))
	k.show("longest: %s", k.times())
	violations, last := k.end()
	if len(violations) == 0 {
		k.show("no law was broken")
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d laws broken; make soak DURATION=%s SEED=%d (timeline: %s)\n%s\n", len(violations), o.Duration, o.Seed, o.Timeline, strings.Join(violations, "\n"))
	fmt.Fprintf(&b, "the end of the timeline:\n%s", strings.Join(last, "\n"))
	return errors.New(b.String())
}

// warmUp lets a first pod make what is made for good.
func (k *kubelet) warmUp(ctx context.Context) error {
	config := k.home.Pod("warm-up")
	config.PortMappings = []*runtimeapi.PortMapping{{ContainerPort: 80, HostPort: 12499}}
	id, err := k.cri.RunPod(ctx, config, "")
	if err != nil {
		return err
	}
	c, err := k.cri.Run(ctx, id, harness.Container("warm-up"), config)
	if err != nil {
		return err
	}
	_, err = k.cri.Exec(ctx, c, "true")
	return errors.Join(err, k.cri.RemovePodFully(ctx, id))
}

// oddity is an image that is pulled and removed again and again.
const oddity = "ghcr.io/crid/oddities:1"

// pull pulls and removes an image for ever. Under faults it may fail; it may not stay half.
func (k *kubelet) pull(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, 5*time.Second+rand.N(10*time.Second))
		call, cancel := context.WithTimeout(ctx, 60*time.Second)
		_, err := k.cri.Pull(call, oddity)
		if err == nil {
			k.count("pulls")
		} else {
			k.say("pull: %.200s", err.Error())
		}
		if _, err := k.cri.Images.RemoveImage(call, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: oddity}}); err != nil {
			k.say("remove image: %.200s", err.Error())
		}
		cancel()
	}
}
