package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// What happens to the whole machine, and not to crid alone.

// write is one change of a record. What was changed shortly before a power loss
// may be lost, torn, or undone.
type write struct {
	at            time.Time
	path          string
	before, after []byte // nil: no file
}

// dirtyFor is how long what was written may not be on the disk itself.
const dirtyFor = 30 * time.Second

func (m *machine) wrote(path string, before, after []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.writes) > 0 && time.Since(m.writes[0].at) > dirtyFor {
		m.writes = m.writes[1:]
	}
	m.writes = append(m.writes, write{time.Now(), path, before, after})
}

// isExempt reports whether a power loss took something of a pod or container, so
// that nothing that was said of it has to hold.
func (m *machine) isExempt(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exempt[id] || m.exempt[m.members[id]]
}

// reboot switches the machine off and on again: no process, mount, namespace or
// cgroup is left, and nothing of the state folder. With power loss neither all
// that was written last.
func (f *faults) reboot() {
	r := f.s.cur.Load()
	if r.dead.Load() {
		return
	}
	loss := f.chance(0.5)
	f.m.note("     the machine is started anew, power loss: %v", loss)
	r.kill()
	time.Sleep(20 * time.Millisecond) // what was under way in crid ends
	f.m.Reboot()
	m := f.m
	m.mu.Lock()
	m.boot++
	m.booted = time.Now()
	clear(m.cgroups)
	clear(m.mounts)
	clear(m.pins)
	clear(m.inits)
	clear(m.shims)
	m.mu.Unlock()
	for _, dir := range []string{m.state, m.handlerDir} {
		_ = os.RemoveAll(dir)
	}
	_ = os.MkdirAll(m.state, 0o700)
	if loss {
		f.losePower()
	}
	f.startAgain()
}

func (f *faults) startAgain() {
	down := f.between(time.Millisecond, 10*time.Second)
	if f.kinds[clock] && f.chance(0.5) {
		f.jump()
	}
	go func() {
		time.Sleep(down)
		f.s.start()
	}()
}

// losePower undoes some of what was written last, or tears it.
func (f *faults) losePower() {
	f.m.mu.Lock()
	writes := f.m.writes
	f.m.writes = nil
	f.m.mu.Unlock()
	done := map[string]bool{}
	for _, w := range writes {
		keep := 0.7
		if w.after == nil {
			keep = 0.4 // what was removed is there again: names may be taken twice
		}
		if done[w.path] || f.chance(keep) || time.Since(w.at) > dirtyFor {
			continue
		}
		done[w.path] = true
		id := filepath.Base(w.path)
		f.m.mu.Lock()
		f.m.exempt[id] = true
		f.m.mu.Unlock()
		content := w.before
		if w.after != nil && f.chance(0.3) {
			content = w.after[:f.n(len(w.after))]
		}
		if content == nil {
			_ = os.Remove(w.path)
		} else {
			_ = os.WriteFile(w.path, content, 0o600)
		}
		f.m.note("     the record of %s is as it was before %v, %d bytes", short(id), w.at.Sub(f.m.began), len(content))
	}
}

// crash kills crid, and the wall clock may be set while it is down.
func (f *faults) crash() {
	r := f.s.cur.Load()
	if r.dead.Load() {
		return
	}
	r.kill()
	f.startAgain()
}

var stamps = regexp.MustCompile(`"(created_at|started_at|at)":(\d+)`)

// jump sets the wall clock. There is one clock in here, so it is the times on
// record that move: to crid that is the same.
func (f *faults) jump() {
	by := f.between(-24*time.Hour, 24*time.Hour)
	f.m.note("     the wall clock is set by %v", -by)
	time.Sleep(5 * time.Millisecond) // what was being written is
	for _, path := range glob(f.m.root, "ledger", "*", "*") {
		b, err := os.ReadFile(path)
		head, body, ok := bytes.Cut(b, []byte("\n"))
		if sum := sha256.Sum256(body); err != nil || !ok || !bytes.Contains(head, []byte(hex.EncodeToString(sum[:]))) {
			continue // torn
		}
		body = stamps.ReplaceAllFunc(body, func(m []byte) []byte {
			name, n, _ := bytes.Cut(m, []byte(":"))
			at, _ := strconv.ParseInt(string(n), 10, 64)
			return fmt.Appendf(name, ":%d", at+int64(by))
		})
		sum := sha256.Sum256(body)
		_ = os.WriteFile(path, fmt.Appendf(nil, "crid-record 1 %s %d\n%s", hex.EncodeToString(sum[:]), len(body), body), 0o600)
	}
}

// freeze freezes a container from outside.
func (f *faults) freeze() {
	w := f.one()
	if w == nil {
		return
	}
	f.m.note("     %s is frozen", short(w.id))
	set := func(frozen bool) {
		for _, p := range f.m.inside("/crid/" + w.pod + "/" + w.id) {
			p.Freeze(frozen)
		}
	}
	set(true)
	f.soon(func() {
		f.m.note("     %s is thawed", short(w.id))
		set(false)
	})
}

// unknow has a shim forget a container that goes on.
func (f *faults) unknow() {
	if w := f.one(); w != nil {
		f.m.note("     the shim forgets %s", short(w.id))
		f.m.mu.Lock()
		f.m.unknown[w.id] = true
		f.m.mu.Unlock()
		f.m.ForgetTask(w.id)
	}
}
