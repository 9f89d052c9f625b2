//go:build e2e

package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpc "google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

const (
	created = runtimeapi.ContainerState_CONTAINER_CREATED
	running = runtimeapi.ContainerState_CONTAINER_RUNNING
	exited  = runtimeapi.ContainerState_CONTAINER_EXITED
)

// ctr is a scene with a container whose workload notes every start of it in a folder of the host, and ends with 42 when a file appears there.
type ctr struct {
	pod
	marks  string // the folder
	spec   *runtimeapi.ContainerConfig
	cid    string
	called time.Time
}

// politely is what a workload does on SIGTERM that is not deaf to it.
const politely = "touch /marks/ended; exit 7"

// workload counts its starts, says so, and waits.
func (c *ctr) workload(t *testing.T, onTerm string) {
	t.Helper()
	c.marks = filepath.Join(c.Home.Tmp(), c.run.at.name+c.run.variant)
	if err := os.RemoveAll(c.marks); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.marks, 0o755); err != nil {
		t.Fatal(err)
	}
	c.spec = harness.Container("workload", "sh", "-c", fmt.Sprintf(
		"trap '%s' TERM; echo start >> /marks/starts; echo first words; while [ ! -e /marks/end ]; do sleep 0.05; done; touch /marks/ended; exit 42", onTerm))
	c.spec.Mounts = []*runtimeapi.Mount{{HostPath: c.marks, ContainerPath: "/marks"}}
}

func (c *ctr) create(t *testing.T) {
	t.Helper()
	id, err := c.Create(t.Context(), c.id, c.spec, c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.cid = id
}

func (c *ctr) started(t *testing.T) {
	t.Helper()
	c.create(t)
	if err := c.StartContainer(t.Context(), c.cid); err != nil {
		t.Fatal(err)
	}
	c.heard(t)
}

// heard waits until the workload has begun, and fails if it has begun more than once or its log lacks its first words.
func (c *ctr) heard(t *testing.T) {
	t.Helper()
	log := c.config.GetLogDirectory() + "/" + c.spec.GetLogPath()
	eventually(t, "the workload's first words in its log", 20*time.Second, func() bool { return strings.Contains(read(log), "first words") })
	if n := strings.Count(read(log), "first words"); n != 1 {
		t.Errorf("the first words are %d times in the log", n)
	}
	c.once(t)
}

func (c *ctr) once(t *testing.T) {
	t.Helper()
	if n := strings.Count(read(filepath.Join(c.marks, "starts")), "start"); n != 1 {
		t.Errorf("the workload was started %d times", n)
	}
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// over lets the workload end.
func (c *ctr) over(t *testing.T) {
	t.Helper()
	if c.marks == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(c.marks, "end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// died is when the workload ended by itself, by its own mark; zero if it did not.
func (c *ctr) died() time.Time {
	st, err := os.Stat(filepath.Join(c.marks, "ended"))
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

// status answers the container of the scene as List and ContainerStatus show it, nil if it is not there. They must agree, and times be in order.
func (c *ctr) status(t *testing.T) *runtimeapi.ContainerStatus {
	t.Helper()
	list, err := c.Containers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found *runtimeapi.Container
	for _, v := range list {
		if v.GetPodSandboxId() == c.id && v.GetMetadata().GetName() == c.spec.GetMetadata().GetName() {
			if found != nil {
				t.Errorf("two containers of one name: %s and %s", found.GetId(), v.GetId())
			}
			found = v
		}
	}
	if found == nil {
		return nil
	}
	st, err := c.Status(t.Context(), found.GetId())
	if grpc.Code(err) == codes.NotFound {
		return nil // what is being removed may go in between
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, f := st.GetStartedAt(), st.GetFinishedAt(); s != 0 && s < st.GetCreatedAt() || f != 0 && f < s {
		t.Errorf("created at %d, started at %d, finished at %d", st.GetCreatedAt(), s, f)
	}
	return st
}

// ending fails the test unless the container has ended so, and not long after its workload did (zero: nobody knows when): within a second of it,
// and twice that for a busy machine, if nobody but the shim was there to see it; else within crid's own bound, which is two.
func (c *ctr) ending(t *testing.T, code int32, at time.Time) {
	t.Helper()
	c.ended(t, c.status(t), code, at)
}

func (c *ctr) ended(t *testing.T, st *runtimeapi.ContainerStatus, code int32, at time.Time) {
	t.Helper()
	if st.GetState() != exited || st.GetExitCode() != code {
		t.Errorf("the container is %s with %d, not EXITED with %d", st.GetState(), st.GetExitCode(), code)
		return
	}
	limit := 4 * time.Second
	if c.run.variant == killFor {
		limit = 2 * time.Second
	}
	if off := time.Unix(0, st.GetFinishedAt()).Sub(at); !at.IsZero() && (off < -time.Second || off > limit) {
		t.Errorf("it is said to have finished %s after it did", off)
	}
}

// CreateContainer: F5, F6, F15, F16.
type create struct {
	ctr
	ids []string
}

func (s *create) set(t *testing.T) {
	s.runPod(t)
	s.spec = harness.Container("workload", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done")
	s.spec.Image.Image = volumed
	s.before = s.whole(t)
}

func (s *create) call(ctx context.Context) error {
	id, err := s.Create(ctx, s.id, s.spec, s.config)
	if err == nil {
		s.cid = id
	}
	return err
}

// undone waits until nothing of a creation is left, with no call from outside.
func (s *create) undone(t *testing.T, why string) {
	t.Helper()
	for _, leak := range s.Settle(t.Context(), s.before, 20*time.Second) {
		t.Errorf("left behind by %s: %s", why, leak)
	}
	if st := s.status(t); st != nil {
		t.Errorf("a container that was never made is %s", st.GetState())
	}
}

func (s *create) crashed(t *testing.T, answered bool) {
	if s.run.number() < 7 {
		if answered {
			t.Error("answered before it was made")
		}
		s.undone(t, "a creation that was cut short")
		return
	}
	st := s.status(t)
	if st.GetState() != created || st == nil {
		t.Fatalf("the container is %v after the crash, not CREATED", st)
	}
	s.ids = append(s.ids, st.GetId())
}

func (s *create) failed(t *testing.T, err error) {
	if err == nil {
		t.Error("the step failed and the call did not")
	}
	if s.run.number() < 9 {
		s.undone(t, "a creation that failed")
		return
	}
	s.ids = append(s.ids, s.status(t).GetId())
}

func (s *create) done(t *testing.T) {
	st := s.status(t)
	for _, id := range append(s.ids, st.GetId()) {
		if id != s.cid {
			t.Errorf("the retry gives container %s, and %s was there", s.cid, id)
		}
	}
	if err := s.StartContainer(t.Context(), s.cid); err != nil {
		t.Fatal(err)
	}
	if st := s.status(t); st.GetState() != running {
		t.Errorf("it is %s after its start", st.GetState())
	}
}

// StartContainer: F7, F8, F15, F16. Whatever happens, the workload does not run twice.
type start struct {
	ctr
	gone bool // it has run and is over
}

func (s *start) set(t *testing.T) {
	s.runPod(t)
	s.workload(t, politely)
	s.create(t)
}

func (s *start) call(ctx context.Context) error { return s.StartContainer(ctx, s.cid) }
func (s *start) retry() bool                    { return !s.gone }

func (s *start) crashed(t *testing.T, answered bool) {
	st := s.status(t)
	if st == nil {
		t.Fatal("the container is gone")
	}
	n, state := s.run.number(), st.GetState()
	ran := state == running || state == exited
	switch {
	case n < 6 && ran:
		t.Errorf("it is %s and was never started", state)
	case (n > 6 || answered) && !ran:
		t.Errorf("it was started and is %s", state)
	case ran && st.GetStartedAt() == 0:
		t.Error("it has no start time")
	}
	if s.run.variant == killFor && ran {
		s.gone = true
		if s.died().IsZero() {
			t.Error("the workload did not end by itself")
		}
		s.ending(t, 42, s.died())
	} else if state == exited {
		t.Errorf("it is EXITED with %d (%s)", st.GetExitCode(), st.GetMessage())
	}
}

// A start that failed is an end: a kubelet makes another container. What nobody was told of goes on.
func (s *start) failed(t *testing.T, err error) {
	if err == nil && s.run.number() != 8 {
		t.Error("the step failed and the call did not")
	}
	if s.run.number() >= 9 {
		return
	}
	st := s.status(t)
	if st.GetState() != exited || st.GetExitCode() == 0 {
		t.Errorf("a container whose start failed is %s with %d", st.GetState(), st.GetExitCode())
	}
	if err := s.RemoveContainer(t.Context(), s.cid); err != nil {
		t.Errorf("remove what did not start: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(s.marks, "starts")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.config.GetLogDirectory() + "/" + s.spec.GetLogPath()); err != nil {
		t.Fatal(err)
	}
	s.create(t) // the same name
}

func (s *start) done(t *testing.T) {
	s.heard(t)
	switch s.run.variant {
	case killFor: // it had been let go before it was started, or ended while crid was down
		if _, err := s.WaitState(t.Context(), s.cid, exited, 20*time.Second); err != nil {
			t.Fatal(err)
		}
		s.ending(t, 42, time.Time{})
	default:
		if st := s.status(t); st.GetState() != running {
			t.Errorf("it is %s after its start", st.GetState())
		}
		if err := s.StopContainer(t.Context(), s.cid, 30); err != nil {
			t.Fatal(err)
		}
		s.ending(t, 7, s.died())
	}
	s.once(t)
}

// StopContainer: F9, F10, F15, F16.
type stop struct{ ctr }

// Up to the kill the workload is deaf to SIGTERM, so that there is something to kill; after it, it ends at SIGTERM with a code of its own.
func (s *stop) deaf() bool { return s.run.number() <= 4 }

func (s *stop) grace() int64 {
	if s.deaf() {
		return 1
	}
	return 30
}

func (s *stop) set(t *testing.T) {
	s.runPod(t)
	if s.deaf() {
		s.workload(t, "")
	} else {
		s.workload(t, politely)
	}
	s.started(t)
}

func (s *stop) call(ctx context.Context) error {
	s.called = time.Now()
	return s.StopContainer(ctx, s.cid, s.grace())
}

func (s *stop) crashed(t *testing.T, answered bool) {
	st := s.status(t)
	switch n := s.run.number(); {
	case n > 4:
		s.ending(t, 7, s.died())
	case n == 4:
		if st.GetState() == exited {
			s.ending(t, 137, time.Time{})
		}
	case s.run.variant == killFor:
		s.ending(t, 42, s.died())
	case st.GetState() != running && st.GetState() != exited: // the stop is on record and goes on
		t.Errorf("it is %s", st.GetState())
	}
	if answered && st.GetState() != exited {
		t.Errorf("its stop was answered and it is %s", st.GetState())
	}
}

func (s *stop) failed(t *testing.T, err error) {
	if st := s.status(t); err == nil && st.GetState() != exited {
		t.Errorf("its stop was answered and it is %s", st.GetState())
	}
}

func (s *stop) done(t *testing.T) {
	if took := time.Since(s.called); took > time.Duration(s.grace())*time.Second+10*time.Second {
		t.Errorf("the stop took %s with a grace of %d s", took, s.grace())
	}
	code := int32(7)
	switch {
	case s.deaf() && s.run.variant == killFor && s.run.number() < 4:
		code = 42
	case s.deaf():
		code = 137
	}
	s.ending(t, code, time.Time{})
	if st := s.status(t); st.GetReason() == "OOMKilled" {
		t.Error("it is said to have run out of memory")
	}
	s.once(t)
}

// RemoveContainer: F11, F15, F16.
type remove struct{ ctr }

func (s *remove) set(t *testing.T) {
	s.runPod(t)
	s.workload(t, politely)
	s.started(t)
	s.ctr.over(t)
	if _, err := s.WaitState(t.Context(), s.cid, exited, 20*time.Second); err != nil {
		t.Fatal(err)
	}
}

func (s *remove) call(ctx context.Context) error { return s.RemoveContainer(ctx, s.cid) }
func (s *remove) over(*testing.T)                {}

func (s *remove) crashed(t *testing.T, answered bool) {
	st := s.status(t)
	if answered && st != nil {
		t.Errorf("its removal was answered and it is %s", st.GetState())
	}
	if st != nil { // it goes on by itself: the next look may find nothing
		s.ended(t, st, 42, s.died())
	}
}

func (s *remove) failed(t *testing.T, err error) { s.crashed(t, err == nil) }

func (s *remove) done(t *testing.T) {
	if st := s.status(t); st != nil {
		t.Errorf("it is %s after its removal", st.GetState())
	}
	s.workload(t, politely)
	if err := os.RemoveAll(s.config.GetLogDirectory() + "/" + s.spec.GetLogPath()); err != nil {
		t.Fatal(err)
	}
	s.started(t) // the same name
}
