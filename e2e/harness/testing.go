package harness

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/images/kit"
)

// Options of Start; the zero value is crid with a full network and the images of the kit.
type Options struct {
	Kind     Kind // default Crid{}
	Network  Network
	NoImages bool // no registry, no pull of busybox
	NoCensus bool // do not compare what is there before and after the test
}

// KindEnv names the environment variable that makes tests run against the peer: CRID_E2E_RUNTIME=containerd. A test that fails there too
// may be wrong itself.
const KindEnv = "CRID_E2E_RUNTIME"

// Default is the runtime that tests are for, crid unless KindEnv says otherwise.
func Default() Kind {
	if os.Getenv(KindEnv) == "containerd" {
		return Containerd{}
	}
	return Crid{}
}

// Start runs a daemon for a test, and ends it with the test: every pod is removed, crid must find its own records in order, the census must be as it was, the daemon must end
// on SIGTERM, and the home goes. The test fails if any of that does not work.
func Start(t testing.TB, o Options) *Daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: runs containers")
	}
	if o.Kind == nil {
		o.Kind = Default()
	}
	home, err := NewHome(o.Network)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Remove(); err != nil {
			t.Error(err)
		}
	})
	if !o.NoImages {
		if err := kit.WriteHosts(home.Certs(), Registry(t).Addr); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Launch(t.Context(), home, o.Kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the daemon's log:\n%s", d.LogTail(40))
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	if !o.NoImages {
		if err := d.Have(t.Context(), kit.Busybox); err != nil {
			t.Fatal(err)
		}
	}
	watch(t, d, o)
	return d
}

// watch takes the census now and compares at the end of the test.
func watch(t testing.TB, d *Daemon, o Options) {
	if !o.NoCensus {
		warmUp(t, d, !o.NoImages)
	}
	before := d.Census(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if !d.Running() {
			if err := d.Start(ctx); err != nil {
				t.Error(err)
				return
			}
		}
		if err := d.RemoveAllPods(ctx); err != nil {
			t.Error(err)
		}
		if o.NoCensus {
			return
		}
		if d.Kind.Name() == "crid" {
			if err := d.Check(ctx); err != nil {
				t.Error(err)
			}
		}
		for _, leak := range d.Settle(ctx, before, 10*time.Second) {
			t.Errorf("left behind: %s", leak)
		}
	})
}

// warmUp makes and removes a pod before the first count, so that what the first pod of a daemon's life makes for good (a bridge, parents
// of cgroups, folders) is there.
func warmUp(t testing.TB, d *Daemon, container bool) {
	t.Helper()
	config := d.Home.Pod("warm-up")
	pod, err := d.RunPod(t.Context(), config, "")
	if err != nil {
		t.Fatal(err)
	}
	if container {
		if _, err := d.Run(t.Context(), pod, Container("warm-up"), config); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.RemovePodFully(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// RemovePodFully stops and removes a pod.
func (c *CRI) RemovePodFully(ctx context.Context, id string) error {
	if err := c.StopPod(ctx, id); err != nil {
		return err
	}
	return c.RemovePod(ctx, id)
}

var shared struct {
	once     sync.Once
	registry *kit.Registry
	err      error
}

// Registry is the kit's registry, one for all tests of a process; it lives as long as the process.
func Registry(t testing.TB) *kit.Registry {
	t.Helper()
	shared.once.Do(func() {
		ctx := context.Background() // it outlives the test that happens to be the first
		programs, err := kit.Build(ctx)
		if err != nil {
			shared.err = err
			return
		}
		images, err := programs.Catalogue(false)
		if err != nil {
			shared.err = err
			return
		}
		shared.registry, shared.err = kit.Serve(ctx, "127.0.0.1:0", images, nil)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.registry
}
