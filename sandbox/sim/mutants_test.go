package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutant is a known zombie bug put back into the code: what has been found in
// other runtimes, by the numbers of the list of mechanisms.
type mutant struct {
	name string
	// what of the file is replaced, by what; each once.
	edits []edit
	// by are the invariants of which one has to catch it.
	by string
}

type edit struct{ file, old, new string }

var mutants = []mutant{
	{"M1: a stop that finds no task is answered well and leaves it running", []edit{{"container/requests.go",
		"	return c.ended(ctx, v.ID)\n}\n\n// KillMember has",
		"	if sh, err := c.Shims.Of(v.PodID); err == nil {\n\t\tif _, err := sh.State(ctx, v.ID); err != nil {\n\t\t\treturn nil\n\t\t}\n\t}\n	return c.ended(ctx, v.ID)\n}\n\n// KillMember has"}}, "I9e"},
	{"M2: nobody asks the kernel whether a process ended", []edit{
		{"container/end.go", "	g.watch.Do(func() {\n", "	g.watch.Do(func() {\n		return\n"}}, "I2"},
	{"M3: the signal is never sent twice, not by the next run either", []edit{
		{"container/end.go", "	if g != nil && !g.proc.Exited() {\n		if err := c.Kernel.Cgroup(v.Cgroup).Thaw", "	if _, twice := sent.LoadOrStore(v.ID, true); twice {\n		return c.awaitDeath(ctx, v, g)\n	}\n	if g != nil && !g.proc.Exited() {\n		if err := c.Kernel.Cgroup(v.Cgroup).Thaw"},
		{"container/containers.go", "// Containers works on", "var sent sync.Map\n\n// Containers works on"}}, "liveness|truth|I"},
	{"M4: an end shows only when all is cleaned up, tried again after ever longer pauses", []edit{
		{"container/end.go", "	if _, err := c.step(id, e); err != nil {\n		c.Log.Error(\"report exit\"", "	for wait := time.Second; e.Empty && g != nil; wait *= 2 {\n		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)\n		err := c.deleteTask(ctx, v)\n		cancel()\n		if err == nil {\n			break\n		}\n		time.Sleep(wait)\n	}\n	if _, err := c.step(id, e); err != nil {\n		c.Log.Error(\"report exit\""}}, "I2"},
	{"M5: an error of Wait is an exit with 255", []edit{
		{"container/end.go", "	if st, ok := statusOf(g); ok {\n", "	if st, ok := statusOf(nil); ok {\n"},
		{"container/end.go", "	if err != nil {\n		return\n	}\n	e.Source, e.Code = lifecycle.Shim, int32(x.Code)\n", "	if err != nil {\n		e.Source, e.Code = lifecycle.Shim, 255\n		return\n	}\n	e.Source, e.Code = lifecycle.Shim, int32(x.Code)\n"}}, "code"},
	{"M6: at an exit event a shim that does not answer is enough, and the kernel is not asked", []edit{
		{"sandbox/reconcile/reconcile.go", "			if e.Kind == shimclient.Dirty {\n", "			if v, err := r.Ledger.Container(e.ID); err == nil && e.Kind == shimclient.ExitEvent {\n				sh, err := r.Pods.Of(v.PodID)\n				if err == nil {\n					_, err = sh.State(ctx, v.ID)\n				}\n				if err != nil {\n					_, _ = r.Ledger.StepContainer(v.ID, lifecycle.SeenExited{Code: 255, Source: lifecycle.Shim, Empty: true, At: time.Now().UnixNano()})\n				}\n			}\n			if e.Kind == shimclient.Dirty {\n"}}, "I1|code"},
	{"M7: what cannot be written does not happen", []edit{
		{"container/containers.go", "	v, err := c.Ledger.StepContainer(id, e, also...)\n", "	if _, n := c.Ledger.Unsaved(); n != nil {\n		return nil, n\n	}\n	v, err := c.Ledger.StepContainer(id, e, also...)\n"}}, "I2|I9|truth|liveness"},
	{"M8: after a restart nobody watches", []edit{
		{"container/adopt.go", "		c.watch(v.ID) // its shim", "		// its shim"},
		{"container/adopt.go", "		default:\n			c.watch(id)\n", "		default:\n"}}, "I2"},
	{"M9: a container whose shim does not answer at the restart is forgotten", []edit{
		{"sandbox/reconcile/reconcile.go", "	for _, c := range r.Ledger.Members(pod) {\n", "	for _, c := range r.Ledger.Members(pod) {\n		if _, err := r.Pods.Of(pod); err != nil {\n			_, _ = r.Ledger.UpdateContainer(c.ID, func(c *store.Container) { c.State.Unborn = true })\n		}\n"}}, "I9"},
	{"M10: two records of one name keep crid from coming up", []edit{
		{"store/recover.go", "		l.recoverPod(f)\n", "		if _, taken := l.podNames[f.record.Name]; taken {\n			return nil, nil, errors.New(\"the name is reserved\")\n		}\n		l.recoverPod(f)\n"}}, "recovery"},
	{"M11: an out-of-memory kill in the cgroup is the container's", []edit{
		{"store/lifecycle/container.go", "	x.OOM = e.OOMKill && bySIGKILL && c.Stop != Killing\n", "	x.OOM = e.OOMKill || bySIGKILL\n"}}, "oom"},
	{"M12: a shim that does not answer has no such task, and no task is no process", []edit{
		{"container/end.go", "		if g == nil || g.proc.Exited() {\n			c.saw(v.ID, g, time.Now())\n		}\n		if c.killed", "		sh, err := c.Shims.Of(v.PodID)\n		if err == nil {\n			_, err = sh.State(ctx, v.ID)\n		}\n		if err != nil {\n			_, _ = c.step(v.ID, lifecycle.SeenExited{Code: 137, Source: lifecycle.Shim, Empty: true, At: time.Now().UnixNano()})\n		}\n		if g == nil || g.proc.Exited() {\n			c.saw(v.ID, g, time.Now())\n		}\n		if c.killed"}}, "I1"},
	{"M13: the containers of a dead shim are taken for dead", []edit{
		{"container/requests.go", "func (c *Containers) ShimGone(id string) { _, _ = c.step(id, lifecycle.SeenShimGone{}) }", "func (c *Containers) ShimGone(id string) {\n	_, _ = c.step(id, lifecycle.SeenExited{Code: 137, Source: lifecycle.Shim, Empty: true, At: time.Now().UnixNano()})\n}"}}, "I1|code"},
	{"M14: the containers are not told that their shim died", []edit{
		{"sandbox/pods.go", "		p.Members.ShimGone(m.ID)\n", "		_ = m\n"}}, "shim"},
	{"M15: a shim that does not answer in time has its containers killed", []edit{
		{"sandbox/shims.go", "		_, _ = s.Connect(ask, id) // the shim", "		if _, err := s.Connect(ask, id); err != nil {\n			p.shimGone(id)\n		}\n		// the shim"}}, "killed"},
	{"an exit is believed while others of the cgroup live", []edit{
		{"container/end.go", "	if e.Empty = c.empty(v); e.Empty {", "	if e.Empty = true; e.Empty {"}}, "I1"},
	{"a stranger with the pid is taken for the container", []edit{
		{"container/adopt.go", "			return c.member(v, st.Pid), didRun\n", "			if p, err := c.Kernel.Identify(st.Pid); err == nil {\n				return asStore(p), didRun\n			}\n			return v.Init, didRun\n"}}, "I5|code"},
	{"a start of this run is undone by the settling of the last", []edit{
		{"container/adopt.go", "		if !c.wasInterrupted(id) {\n			return nil, nil\n		}\n", ""}}, "I3|killed|start|code"},
	{"nothing is fenced off", []edit{
		{"container/reap.go", "	if err := os.Rename(c.Bundle(id), c.fenced(id)); err != nil", "	if err := os.ErrNotExist; err != nil"}}, "I1|I3|leak|liveness|truth"},
	{"an end is shown as it is written, whatever the wall clock did", []edit{
		{"store/record.go", "	return max(c.State.Exit.At, c.StartedAt, c.CreatedAt)", "	return c.State.Exit.At"}}, "times"},
	{"the network goes while members live", []edit{
		{"store/lifecycle/pod.go", "	if !p.MembersEnded {\n		return EndMembers\n	}\n	if p.Holds&HoldsShim", "	if !p.MembersEnded {\n		return EndMembers | FreeNet\n	}\n	if p.Holds&HoldsShim"}}, "I6"},
	{"a namespace goes before CNI DEL", []edit{
		{"store/lifecycle/pod.go", "	case p.Holds&HoldsNet != 0:\n		w |= FreeNet\n", "	case p.Holds&HoldsNet != 0:\n		return w | ErasePod\n"}}, "leak|liveness|I"},
}

var newline = regexp.MustCompile(`\n`)

// TestMutants puts each bug back and has it caught. It compiles a test binary
// for each, and is for the long lane only.
func TestMutants(t *testing.T) {
	if os.Getenv("CRID_MUTANTS") == "" {
		t.Skip("compiles the code anew for each mutant: set CRID_MUTANTS=1 (or to a part of a name)")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	ctx, order := t.Context(), mutants
	if os.Getenv("CRID_MODEL") == "long" {
		// The lane has not the time for all: as many as there is time for, beginning
		// with another one each hour.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, mutantsLane)
		defer cancel()
		first := int(time.Now().Unix()/3600) % len(mutants)
		order = slices.Concat(mutants[first:], mutants[:first])
	}
	for _, m := range order {
		if want := os.Getenv("CRID_MUTANTS"); want != "1" && !regexp.MustCompile(want).MatchString(m.name) {
			continue
		}
		t.Run(newline.ReplaceAllString(m.name, " "), func(t *testing.T) { m.caught(ctx, t, root) })
	}
}

// mutantsLane is what the model lane spends on mutants.
const mutantsLane = 200 * time.Second

// late skips a mutant that the lane has no time for.
func late(ctx context.Context, t *testing.T) {
	t.Helper()
	if ctx.Err() != nil {
		t.Skip("the lane's time for mutants is up: make mutants tries all")
	}
}

func (m mutant) caught(ctx context.Context, t *testing.T, root string) {
	late(ctx, t)
	dir := t.TempDir()
	changed := map[string]string{}
	for _, e := range m.edits {
		text, ok := changed[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if strings.Count(text, e.old) != 1 {
			t.Fatalf("%s has changed; the mutant has to follow: %q is there %d times", e.file, e.old, strings.Count(text, e.old))
		}
		changed[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for file, text := range changed {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, file)] = to
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "sim.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", bin, ".") //nolint:gosec // ours
	if out, err := build.CombinedOutput(); err != nil {
		late(ctx, t)
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	by := regexp.MustCompile(`\b(` + m.by + `)[0-9a-z]*: `)
	const step, most = 250, 10_000
	other := ""
	for from := 1; from < most; from += step {
		run := exec.CommandContext(ctx, bin, "-test.run=^TestSeeds$", fmt.Sprintf("-seeds=%d", step), fmt.Sprintf("-from=%d", from)) //nolint:gosec // ours
		run.Env = append(os.Environ(), "CRID_SIM_PLAIN=1")
		out, err := run.CombinedOutput()
		if err == nil {
			continue
		}
		late(ctx, t)
		if hit := by.FindString(string(out)); hit != "" {
			t.Logf("caught by %s within %d seeds", strings.TrimSuffix(hit, ": "), from+step-1)
			return
		}
		other = string(out) // a failure, but not the one that this bug must lead to: looked for further
	}
	t.Fatalf("not caught by %d seeds, or not by what it should be (%s):\n%.2000s", most, m.by, other)
}

// TestMutantsApply fails as soon as the code has moved on from a mutant.
func TestMutantsApply(t *testing.T) {
	for _, m := range mutants {
		for _, e := range m.edits {
			b, err := os.ReadFile(filepath.Join("../..", e.file))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), e.old); n != 1 {
				t.Errorf("%s: %q is %d times in %s", m.name, e.old, n, e.file)
			}
		}
	}
}
