package stdio

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/crid-project/crid/shimclient"
)

// crid died with execs under way: one was made and not started, one waits, one writes more than its pipe takes. The next run ends them all.
func TestExecsOfAnEarlierRunAreEnded(t *testing.T) {
	s, dir := newFakeShim(t), t.TempDir()
	for n, script := range []string{"exec sleep 1000", "exec sleep 1000", "exec yes"} {
		p, err := makePipes(dir, newExecID(), &ExecRequest{Stdout: os.Stdout, Stderr: os.Stderr})
		if err != nil {
			t.Fatal(err)
		}
		id := filepath.Base(p.dir)
		if err := s.Exec(t.Context(), shimclient.ExecSpec{ID: "c1", ExecID: id, Stdout: p.stdout, Stderr: p.stderr, Process: sh(script)}); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if _, err := s.StartExec(t.Context(), "c1", id); err != nil {
				t.Fatal(err)
			}
		}
		p.close() // as a dead crid has
	}
	names, err := Left(dir)
	if err != nil || len(names) != 3 {
		t.Fatalf("left: %v, %v", names, err)
	}
	for _, name := range names {
		EndLeft(s, "c1", name, dir, nil)
	}
	eventually(t, "execs ended and deleted", func() bool { return s.left() == 0 })
	eventually(t, "pipes removed", emptyDir(t, dir))
	if names, err := Left(filepath.Join(dir, "never")); err != nil || len(names) > 0 {
		t.Errorf("without a folder: %v, %v", names, err)
	}
}
