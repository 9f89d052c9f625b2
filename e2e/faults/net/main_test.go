//go:build e2e

package net

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/story"
)

func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(plugin())
	}
	if len(os.Args) == 3 && os.Args[1] == holdArg {
		time.Sleep(time.Hour)
	}
	story.Main(m)
}

// bench is a daemon whose pods get, after the bridge, a plugin of ours.
type bench struct {
	*story.Story
	dir string // what the plugin is told, and what it saw
}

// limit is the time that a plugin has on a bench.
const limit = 3 * time.Second

// ours is the type of our plugin in network configurations.
const ours = "crid-poser"

func begin(t *testing.T, prepare ...func(*harness.Home) error) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	plugins := filepath.Join(b.dir, "bin")
	if err := errors.Join(os.Mkdir(plugins, 0o755), os.Symlink(program, filepath.Join(plugins, ours))); err != nil {
		t.Fatal(err)
	}
	steps := append([]func(*harness.Home) error{
		watch.Set(fmt.Sprintf("[cni]\nplugin_timeout = %q\n", limit)),
		b.chain(map[string]any{"type": ours, "control": b.dir}),
	}, prepare...)
	b.Story = story.AloneIn(t, harness.Crid{Plugins: plugins}, watch.Each(steps...))
	t.Cleanup(b.well)
	return b
}

// chain adds plugins to the end of a home's network.
func (b *bench) chain(more ...map[string]any) func(*harness.Home) error {
	return func(h *harness.Home) error {
		return edit(h, func(conf map[string]any) {
			plugins, _ := conf["plugins"].([]any)
			for _, m := range more {
				plugins = append(plugins, m)
			}
			conf["plugins"] = plugins
		})
	}
}

func confPath(h *harness.Home) string {
	return filepath.Join(h.CNIConf(), "10-"+h.Name+".conflist")
}

// edit changes a home's network, by rename as an operator's tool does.
func edit(h *harness.Home, change func(map[string]any)) error {
	data, err := os.ReadFile(confPath(h))
	if err != nil {
		return err
	}
	var conf map[string]any
	if err := json.Unmarshal(data, &conf); err != nil {
		return err
	}
	change(conf)
	if data, err = json.Marshal(conf); err != nil {
		return err
	}
	if err := os.WriteFile(confPath(h)+".part", data, 0o600); err != nil {
		return err
	}
	return os.Rename(confPath(h)+".part", confPath(h))
}

// fault tells the plugin what to do when it is asked for a verb; "" is to do its work.
func (b *bench) fault(verb, how string) {
	b.T.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, verb), []byte(how), 0o600); err != nil {
		b.T.Fatal(err)
	}
}

// well ends all faults, so that the clean-up is that of a sound network.
func (b *bench) well() {
	for _, verb := range []string{"ADD", "DEL", "CHECK", "STATUS", "GC"} {
		_ = os.Remove(filepath.Join(b.dir, verb)) // none was told
	}
}

// saw is how often the plugin was called so for a pod; "" counts all pods.
func (b *bench) saw(verb, pod string) (n int) {
	b.T.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "calls"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.T.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == verb && (pod == "" || f[1] == pod) {
			n++
		}
	}
	return n
}

// clean fails the test if anything is there that was not there before.
func (b *bench) clean(what string, before harness.Census) {
	b.T.Helper()
	for _, leak := range b.Settle(b.T.Context(), before, 15*time.Second) {
		b.T.Errorf("%s: left behind: %s", what, leak)
	}
}

// refused runs a pod that must not come up, and gives the words. It may take the time of an ADD and a DEL, and 15 seconds in which crid waits
// for a DEL that works.
func (b *bench) refused(what, name string) string {
	b.T.Helper()
	config := b.Home.Pod(name)
	start := time.Now()
	id, err := b.RunPod(b.T.Context(), config, "")
	if took := time.Since(start); took > 2*limit+20*time.Second {
		b.T.Errorf("%s: %s until the answer", what, took)
	}
	if err == nil {
		b.T.Errorf("%s: pod %s runs", what, id)
		if err := b.RemovePodFully(b.T.Context(), id); err != nil {
			b.T.Error(err)
		}
		return ""
	}
	if len(err.Error()) > 4096 {
		b.T.Errorf("%s: an error of %d bytes", what, len(err.Error()))
	}
	return err.Error()
}

// reuse runs a pod again under a name that a failure had, and takes it away.
func (b *bench) reuse(what, name string) {
	b.T.Helper()
	id, err := b.RunPod(b.T.Context(), b.Home.Pod(name), "")
	if err != nil {
		b.T.Errorf("%s: afterwards no pod runs: %v", what, err)
	} else if err := b.RemovePodFully(b.T.Context(), id); err != nil {
		b.T.Errorf("%s: the pod afterwards: %v", what, err)
	}
}
