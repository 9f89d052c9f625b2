package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/store/lifecycle"
)

func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// wrap makes a file of a body: what an honest writer would have written.
func wrap(body string) []byte {
	sum := sha256.Sum256([]byte(body))
	return fmt.Appendf(nil, "%s %d %s %d\n%s", magic, version, hex.EncodeToString(sum[:]), len(body), body)
}

// bodyOf is the body of a record file.
func bodyOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	_, body, _ := bytes.Cut(b, []byte("\n"))
	return string(body)
}

func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(b), 0o600))
}

// Whatever a disk or a person does to one record costs that record only: it is
// kept for a look, told, and the others come back.
func TestDamagedRecords(t *testing.T) {
	for _, tc := range []struct {
		name   string
		root   bool
		damage func(t *testing.T, path string)
		why    string
	}{
		{"zero length", false, func(t *testing.T, p string) { must(t, os.Truncate(p, 0)) }, "torn"},
		{"torn in the head", false, func(t *testing.T, p string) { must(t, os.Truncate(p, 20)) }, "torn"},
		{"torn in the body", false, func(t *testing.T, p string) {
			rewrite(t, p, func(b []byte) []byte { return b[:len(b)-10] })
		}, "wrong length"},
		{"zeros at the end, as a power loss leaves them", false, func(t *testing.T, p string) {
			rewrite(t, p, func(b []byte) []byte { clear(b[len(b)-100:]); return b })
		}, "checksum"},
		{"one bit flipped", false, func(t *testing.T, p string) {
			rewrite(t, p, func(b []byte) []byte { b[len(b)/2] ^= 4; return b })
		}, "checksum"},
		{"garbage appended", false, func(t *testing.T, p string) {
			rewrite(t, p, func(b []byte) []byte { return append(b, 'x') })
		}, "wrong length"},
		{"huge", false, func(t *testing.T, p string) { must(t, os.Truncate(p, 1<<40)) }, "too large"},
		{"of a newer format", false, func(t *testing.T, p string) {
			rewrite(t, p, func(b []byte) []byte { return bytes.Replace(b, []byte(magic+" 1 "), []byte(magic+" 2 "), 1) })
		}, `version "2"`},
		{"not of ours", false, func(t *testing.T, p string) { must(t, os.WriteFile(p, []byte("[section]\nkey=1\n"), 0o600)) }, "no record"},
		{"no object", false, func(t *testing.T, p string) { must(t, os.WriteFile(p, wrap(`[]`), 0o600)) }, "decode"},
		{"no fields", false, func(t *testing.T, p string) { must(t, os.WriteFile(p, wrap(`{"config":""}`), 0o600)) }, "decode"},
		{"null fields", false, func(t *testing.T, p string) { must(t, os.WriteFile(p, wrap(`{"record":null}`), 0o600)) }, "empty"},
		{"another's id", false, func(t *testing.T, p string) {
			must(t, os.WriteFile(p, wrap(strings.Replace(bodyOf(t, p), filepath.Base(p), id(77), 1)), 0o600))
		}, "its id is not its name"},
		{"a configuration that does not open", false, func(t *testing.T, p string) {
			var d disk
			must(t, json.Unmarshal([]byte(bodyOf(t, p)), &d))
			d.Config = []byte("unreadable")
			b, err := json.Marshal(d)
			must(t, err)
			must(t, os.WriteFile(p, wrap(string(b)), 0o600))
		}, "configuration"},
		{"a symlink to a good record", false, func(t *testing.T, p string) {
			aside := filepath.Join(t.TempDir(), "aside")
			must(t, os.Rename(p, aside))
			must(t, os.Symlink(aside, p))
		}, "open"},
		{"a directory", false, func(t *testing.T, p string) {
			must(t, os.Remove(p))
			must(t, os.MkdirAll(filepath.Join(p, "sub"), 0o700))
		}, "not a regular file"},
		{"a fifo, which would block for ever", false, func(t *testing.T, p string) {
			must(t, os.Remove(p))
			must(t, unix.Mkfifo(p, 0o600))
		}, "not a regular file"},
		{"somebody else's file", true, func(t *testing.T, p string) { must(t, os.Chown(p, 12345, 0)) }, "owned by uid 12345"},
	} {
		for _, kind := range []string{"pods", "containers"} {
			t.Run(tc.name+" in "+kind, func(t *testing.T) {
				if tc.root {
					needsRoot(t, "gives a file away")
				}
				dir := t.TempDir()
				kept(t, dir, 2)
				bad := filepath.Join(dir, kind, map[string]string{"pods": id(1), "containers": id(101)}[kind])
				tc.damage(t, bad)
				before, _ := os.Lstat(bad)

				l, lost := open(t, dir)
				if len(lost) != 1 || lost[0].Path != bad || !strings.Contains(lost[0].Why, tc.why) {
					t.Fatalf("lost %v, want %s because of %q", lost, bad, tc.why)
				}
				if n := len(l.Pods()) + len(l.Containers()); n != 3 {
					t.Errorf("%d records are left of 4", n)
				}
				in := l.InQuarantine()
				if len(in) != 1 || l.Quarantined() != 1 {
					t.Fatalf("in quarantine: %v", in)
				}
				if after, err := os.Lstat(in[0]); err != nil || !os.SameFile(before, after) {
					t.Errorf("what was set aside is not the damaged thing: %v", err)
				}
				// It is told once, and does not come back.
				l.Close()
				if _, lost := open(t, dir); len(lost) > 0 {
					t.Errorf("lost again: %v", lost)
				}
			})
		}
	}
}

func TestThingsThatAreNoRecordsAreSetAside(t *testing.T) {
	dir := t.TempDir()
	kept(t, dir, 1)
	for _, name := range []string{"README", strings.Repeat("g", 64), id(5)[:63], id(5) + "0"} {
		must(t, os.WriteFile(filepath.Join(dir, "pods", name), []byte("?"), 0o600))
	}
	// A write that a crash cut short is no loss: the record before it is there.
	must(t, os.WriteFile(filepath.Join(dir, "pods", id(1)+".new"), []byte("half"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "pods", id(2)+".new", "x"), 0o700))
	l, lost := open(t, dir)
	if len(lost) != 5 || len(l.InQuarantine()) != 5 {
		t.Errorf("lost %v, in quarantine %v", lost, l.InQuarantine())
	}
	if len(l.Pods()) != 1 {
		t.Errorf("%d pods", len(l.Pods()))
	}
	if _, err := os.Lstat(filepath.Join(dir, "pods", id(1)+".new")); err == nil {
		t.Error("the half-written file is left")
	}
}

func TestQuarantineKeepsEveryVersion(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		must(t, os.MkdirAll(filepath.Join(dir, "pods"), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, "pods", id(1)), []byte("bad"), 0o600))
		l, _ := open(t, dir)
		l.Close()
	}
	l, _ := open(t, dir)
	if got := l.InQuarantine(); len(got) != 3 {
		t.Errorf("in quarantine: %v", got)
	}
}

// A copied record file, or a crash between two attempts, can leave two records
// that have one name.
func TestTwoRecordsWithOneName(t *testing.T) {
	for _, tc := range []struct {
		name       string
		one, other lifecycle.PodPhase
		newer      int // which of them was made later
		want       int
	}{
		{"the ready one has it, though older", lifecycle.Ready, lifecycle.Stopped, 2, 1},
		{"the ready one has it, whichever is read first", lifecycle.Stopped, lifecycle.Ready, 1, 2},
		{"of two that are ready, the newer", lifecycle.Ready, lifecycle.Ready, 2, 2},
		{"of two that are not, the newer", lifecycle.Stopped, lifecycle.Stopped, 1, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "pods"), 0o700))
			for n, phase := range map[int]lifecycle.PodPhase{1: tc.one, 2: tc.other} {
				p := pod(n)
				p.Name, p.State.Phase, p.CreatedAt = pod(1).Name, phase, 5
				if n == tc.newer {
					p.CreatedAt = 6
				}
				must(t, writeRecord(realDisk{}, filepath.Join(dir, "pods", id(n)), p, p.Config, unknown{}))
			}
			l, lost := open(t, dir)
			if len(lost) != 0 || len(l.Pods()) != 2 {
				t.Fatalf("lost %v, %d pods: both exist and have to be cleared away", lost, len(l.Pods()))
			}
			if got, mine := l.AddPod(&Pod{ID: id(3), Name: pod(1).Name, Config: sealed("")}); mine || got.ID != id(tc.want) {
				t.Errorf("the name belongs to %s", got.ID)
			}
			// Erasing the other one does not free the name of the winner.
			loser := id(3 - tc.want)
			for _, e := range []lifecycle.PodEvent{lifecycle.AskPodRemove{}, lifecycle.MembersDone{}, lifecycle.MembersDone{Erased: true}} {
				_, err := l.StepPod(loser, e)
				must(t, err)
			}
			must(t, l.ErasePod(bounded(t), loser))
			if got, mine := l.AddPod(&Pod{ID: id(3), Name: pod(1).Name, Config: sealed("")}); mine || got.ID != id(tc.want) {
				t.Errorf("after the other is gone the name belongs to %s", got.ID)
			}
		})
	}
}

func TestTwoContainersWithOneName(t *testing.T) {
	for _, tc := range []struct {
		name       string
		one, other lifecycle.Phase
		want       int
	}{
		{"the living one has it", lifecycle.Running, lifecycle.Exited, 1},
		{"the living one has it, whichever is read first", lifecycle.Exited, lifecycle.Running, 2},
		{"else the newer", lifecycle.Exited, lifecycle.Exited, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Join(dir, "containers"), 0o700))
			for n, phase := range map[int]lifecycle.Phase{1: tc.one, 2: tc.other} {
				c := member(n, 9)
				c.Name, c.State.Phase = ContainerName{Name: "same"}, phase
				must(t, writeRecord(realDisk{}, filepath.Join(dir, "containers", id(n)), c, c.Config, unknown{}))
			}
			l, _ := open(t, dir)
			twin := member(3, 9)
			twin.Name = ContainerName{Name: "same"}
			if got, mine := l.AddContainer(twin); mine || got.ID != id(tc.want) {
				t.Errorf("the name belongs to %s", got.ID)
			}
		})
	}
}

func TestAContainerOfNoValidPodIsNotRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "containers"), 0o700))
	c := member(1, 9)
	c.PodID = "../../etc"
	must(t, writeRecord(realDisk{}, filepath.Join(dir, "containers", id(1)), c, c.Config, unknown{}))
	if l, lost := open(t, dir); len(lost) != 1 || len(l.Containers()) != 0 {
		t.Errorf("lost %v", lost)
	}
}

// Two versions of crid that share a format version take turns on one node.
func TestFieldsOfANewerCridSurvive(t *testing.T) {
	dir := t.TempDir()
	kept(t, dir, 1)
	for _, path := range []string{filepath.Join(dir, "pods", id(1)), filepath.Join(dir, "containers", id(101))} {
		body := strings.Replace(bodyOf(t, path), `{"record":{`, `{"later":[1, 2],"record":{"future":{"a":"<&>"},"more":null,`, 1)
		must(t, os.WriteFile(path, wrap(body), 0o600))
	}
	l, lost := open(t, dir)
	if len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
	_, err := l.UpdatePod(id(1), func(p *Pod) { p.Cgroup = "/changed" })
	must(t, err)
	_, err = l.UpdateContainer(id(101), func(c *Container) { c.Cgroup = "/changed" })
	must(t, err)
	must(t, l.FlushPod(bounded(t), id(1)))
	must(t, l.FlushContainer(bounded(t), id(101)))
	for _, path := range []string{filepath.Join(dir, "pods", id(1)), filepath.Join(dir, "containers", id(101))} {
		var got struct {
			Later  []int
			Record struct {
				Future map[string]string
				More   *string
				Cgroup string
			}
		}
		body := bodyOf(t, path)
		must(t, json.Unmarshal([]byte(body), &got))
		if len(got.Later) != 2 || got.Record.Future["a"] != "<&>" || got.Record.Cgroup != "/changed" || !strings.Contains(body, `"more":null`) {
			t.Errorf("%s was written back as %s", path, body)
		}
		if strings.Count(body, `"cgroup"`) != 1 {
			t.Errorf("a known field is there twice: %s", body)
		}
	}
	l.Close()
	if _, lost := open(t, dir); len(lost) > 0 {
		t.Errorf("what was written back cannot be read: %v", lost)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(wrap(`{"record":{"id":"a","state":{"phase":1},"x":1},"config":"YQ=="}`))
	f.Add(wrap(`{"record":null}`))
	f.Add([]byte("crid-record 1 00 0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(b []byte) {
			d, err := decodeRecord[Container](b)
			if err != nil {
				return
			}
			if d.record == nil {
				t.Fatal("a record without an error and without content")
			}
			d.record.Config = sealed(d.config)
			path := filepath.Join(t.TempDir(), "r")
			must(t, writeRecord(realDisk{}, path, d.record, d.record.Config, d.unknown))
			again, err := readRecord[Container](path)
			if err != nil {
				t.Fatalf("what was read cannot be read again after it was written: %v", err)
			}
			if len(again.unknown.inside) != len(d.unknown.inside) || len(again.unknown.beside) != len(d.unknown.beside) {
				t.Fatalf("unknown fields %v became %v", d.unknown, again.unknown)
			}
		}
		check(b)
		check(wrap(string(b))) // past the checksum, or nothing deep is ever reached
	})
}
