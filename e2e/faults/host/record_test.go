//go:build e2e

package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/e2e/faults/inject"
	"github.com/crid-project/crid/e2e/faults/watch"
	"github.com/crid-project/crid/e2e/harness"
	"github.com/crid-project/crid/e2e/images/kit"
	"github.com/crid-project/crid/e2e/story"
)

// victim is a file that links in the wrong place point to.
const victimText = "not crid's to read or to write"

// damages are what may become of a file. Each is given its path and that of a file that must never be touched.
var damages = map[string]func(path, victim string) error{
	"empty": func(path, _ string) error { return os.Truncate(path, 0) },
	"half": func(path, _ string) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, st.Size()/2)
	},
	"one bit": func(path, _ string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[len(data)*2/3] ^= 8
		return os.WriteFile(path, data, 0o600)
	},
	"1 GiB of zeros": func(path, _ string) error {
		if err := os.Truncate(path, 0); err != nil {
			return err
		}
		return os.Truncate(path, 1<<30)
	},
	"a newer version": func(path, _ string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, bytes.Replace(data, []byte("crid-record 1 "), []byte("crid-record 7 "), 1), 0o600)
	},
	"a folder": func(path, _ string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Mkdir(path, 0o700)
	},
	"a link": func(path, victim string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Symlink(victim, path)
	},
	"a link to /dev/zero": func(path, _ string) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Symlink("/dev/zero", path)
	},
	"somebody else's": func(path, _ string) error { return os.Chown(path, 65534, 65534) },
	"mode 000":        func(path, _ string) error { return os.Chmod(path, 0) },
}

// harmless is damage that does not keep root from reading.
const harmless = "mode 000"

// Every kind of damage to the records of pods, and then of containers, while their workloads run: crid comes up and takes the copies; nothing is to be
// seen of it but the quarantine.
func TestF62DamagedRecordsWithCopies(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pods", "containers"} {
		t.Run(kind, func(t *testing.T) {
			s := story.Alone(t, harness.Crid{})
			victim := filepath.Join(t.TempDir(), "victim")
			if err := os.WriteFile(victim, []byte(victimText), 0o644); err != nil {
				t.Fatal(err)
			}
			type life struct {
				c   *story.Container
				pid int
			}
			lives := map[string]life{}
			for n, what := range slices.Sorted(maps.Keys(damages)) {
				c := s.Pod(fmt.Sprintf("damaged-%d", n)).Go(story.Sleeper(fmt.Sprintf("c-%d", n)))
				lives[what] = life{c, c.Pid()}
			}
			inject.Crash(s)
			for what, l := range lives {
				id := l.c.ID
				if kind == "pods" {
					id = l.c.Pod.ID
				}
				if err := damages[what](filepath.Join(s.Home.Root(), "ledger", kind, id), victim); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			again(s)
			for what, l := range lives {
				l.c.WantState(running)
				l.c.Sh("true")
				if l.c.Pid() != l.pid || !harness.Alive(l.pid) {
					t.Errorf("%s: the container has process %d, it was %d", what, l.c.Pid(), l.pid)
				}
			}
			if n := len(quarantined(s)); n != len(damages)-1 {
				t.Errorf("%d records are put aside, %d were damaged: %q", n, len(damages)-1, quarantined(s))
			}
			tidy(s)
			inject.Crash(s)
			again(s)
		})
	}
}

// The same where the copies are damaged too: crid comes up, touches no file that a link leads to, knows what it can know, ends what nobody can know,
// and the names are free.
func TestF62DamagedRecords(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pods", "containers"} {
		t.Run(kind, func(t *testing.T) {
			s := story.Alone(t, harness.Crid{})
			start := leases(s.Home)
			victim := filepath.Join(t.TempDir(), "victim")
			if err := os.WriteFile(victim, []byte(victimText), 0o644); err != nil {
				t.Fatal(err)
			}
			bystander := s.Pod("bystander").Go(story.Sleeper("bystander"))
			type life struct {
				pod *story.Pod
				c   *story.Container
				pid int
			}
			lives := map[string]life{}
			for n, what := range slices.Sorted(maps.Keys(damages)) {
				p := s.Pod(fmt.Sprintf("damaged-%d", n))
				c := p.Go(story.Sleeper(fmt.Sprintf("c-%d", n)))
				lives[what] = life{p, c, c.Pid()}
			}
			inject.Crash(s)
			for what, l := range lives {
				id := l.pod.ID
				if kind == "containers" {
					id = l.c.ID
				}
				for _, dir := range []string{filepath.Join(s.Home.Root(), "ledger"), filepath.Join(s.Home.State(), "records")} {
					if err := damages[what](filepath.Join(dir, kind, id), victim); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
				}
			}
			again(s)
			bystander.WantState(running)
			bystander.Sh("true")
			got := states(s)
			for what, l := range lives {
				name := l.c.Config.GetMetadata().GetName()
				if what == harmless {
					if got[name] != running || !harness.Alive(l.pid) {
						t.Errorf("%s: the container is %s", what, got[name])
					}
					continue
				}
				s.Eventually(what+": what nobody can know is ended", 20*time.Second, func() bool { return !harness.Alive(l.pid) })
				if kind == "containers" {
					l.pod.Go(l.c.Config).Sh("true") // the name is free in the pod that goes on
					continue
				}
				// What is left of it is told of, and can be removed.
				if err := s.RemoveContainer(t.Context(), l.c.ID); err != nil {
					t.Errorf("%s: remove the container of a pod that nobody knows: %v", what, err)
				}
				id, err := s.RunPod(t.Context(), l.pod.Config, "")
				if err != nil {
					t.Errorf("%s: the pod's name: %v", what, err)
					continue
				}
				(&story.Pod{Story: s, ID: id, Config: l.pod.Config}).Go(l.c.Config).Sh("true")
			}
			if text, err := os.ReadFile(victim); err != nil || string(text) != victimText {
				t.Errorf("the file that a link pointed to: %q (%v)", text, err)
			}
			if n := len(quarantined(s)); n != len(damages)-1 {
				t.Errorf("%d records are put aside, %d were damaged: %q", n, len(damages)-1, quarantined(s))
			}
			if text, err := story.Ask(s.Daemon, "/check"); err != nil || !strings.Contains(text, "quarantine") {
				t.Errorf("crid check does not tell of the quarantine: %s (%v)", text, err)
			}
			s.Eventually("leases are those of pods", 20*time.Second, func() bool {
				pods, err := s.Pods(t.Context())
				return err == nil && leases(s.Home)-start == len(pods)
			})
			tidy(s)
			inject.Crash(s)
			again(s)
		})
	}
}

// The same to the records of images and layers: what is damaged is not there, all else is; a pull brings it back.
func TestF62DamagedImageRecords(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte(victimText), 0o644); err != nil {
		t.Fatal(err)
	}
	some := []string{"half", "a link"} // by default; each of the others has a test beside the code
	for what, damage := range damages {
		if !watch.All() && !slices.Contains(some, what) || what == harmless || what == "somebody else's" || what == "a newer version" { // images have no version, and are root's to read
			continue
		}
		for _, pattern := range []string{"images/records/*.json", "images/l/*.json", "images/durable.json", "containers/*/rootfs.json", "cni/results/*"} {
			p := s.Pod("uses")
			p.Go(story.Sleeper("c"))
			inject.Crash(s)
			paths := globs(filepath.Join(s.Home.Root(), pattern))
			if len(paths) == 0 {
				t.Logf("nothing like %s", pattern)
			} else if err := damage(paths[0], victim); err != nil {
				t.Fatalf("%s: %s: %v", what, pattern, err)
			}
			again(s)
			if err := s.Have(t.Context(), kit.Busybox); err != nil {
				t.Errorf("%s: %s: the image cannot be had again: %v", what, pattern, err)
			}
			if err := s.Have(t.Context(), kit.Nginx); err != nil {
				t.Errorf("%s: %s: the other image: %v", what, pattern, err)
			}
			if len(paths) > 0 {
				if st, err := os.Lstat(paths[0]); err == nil && st.IsDir() {
					_ = os.Remove(paths[0]) // ours, if crid has left it
				}
			}
			if err := s.RemovePodFully(t.Context(), p.ID); err != nil {
				t.Errorf("%s: %s: the pod that used it: %v", what, pattern, err)
			}
			q := s.Pod("after")
			q.Go(story.Sleeper("c")).Sh("ls /bin/sh")
			if err := s.RemovePodFully(t.Context(), q.ID); err != nil {
				t.Error(err)
			}
		}
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != victimText {
		t.Errorf("the file that a link pointed to: %q (%v)", text, err)
	}
}

// Two records with one name, of pods and of containers: crid comes up, one of them has the name, both can be stopped and removed, and then the name is
// free.
func TestF62TwoRecordsWithOneName(t *testing.T) {
	t.Parallel()
	s := story.Alone(t, harness.Crid{})
	p, q := s.Pod("one"), s.Pod("two")
	a, b := p.Go(story.Sleeper("a")), p.Go(story.Sleeper("b"))
	q.Go(story.Sleeper("c"))
	inject.Crash(s)
	rename := func(kind, from, to string) {
		t.Helper()
		name := func(id string, set any) any {
			path := filepath.Join(s.Home.Root(), "ledger", kind, id)
			body := map[string]any{}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, text, _ := bytes.Cut(data, []byte("\n"))
			reader := json.NewDecoder(bytes.NewReader(text))
			reader.UseNumber()
			if err := reader.Decode(&body); err != nil {
				t.Fatal(err)
			}
			record, _ := body["record"].(map[string]any)
			if set == nil {
				return record["name"]
			}
			record["name"] = set
			if text, err = json.Marshal(body); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(text)
			data = fmt.Appendf(nil, "crid-record 1 %s %d\n%s", hex.EncodeToString(sum[:]), len(text), text)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		}
		n := name(to, nil)
		if n == nil {
			t.Fatal("the record has no name")
		}
		name(from, n)
	}
	rename("pods", q.ID, p.ID)
	rename("containers", b.ID, a.ID)
	again(s)
	if len(quarantined(s)) != 0 {
		t.Fatalf("the records are put aside: %s", s.LogTail(10))
	}
	pods, err := s.Pods(t.Context())
	if err != nil || len(pods) != 2 {
		t.Errorf("pods: %v (%v)", pods, err)
	}
	if list, err := s.Containers(t.Context()); err != nil || len(list) != 3 {
		t.Errorf("containers: %v (%v)", list, err)
	}
	for _, c := range []*story.Container{a, b} {
		c.Stop(1)
		c.Remove()
	}
	p.Go(story.Sleeper("a")).Sh("true")
	for _, id := range []string{q.ID, p.ID} {
		if err := s.RemovePodFully(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	id, err := s.RunPod(t.Context(), p.Config, "")
	if err != nil {
		t.Fatalf("the name is not free: %v", err)
	}
	if err := s.RemovePodFully(t.Context(), id); err != nil {
		t.Error(err)
	}
}
