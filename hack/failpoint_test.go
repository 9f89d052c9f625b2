package hack

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What tests can have the daemon die at is not in what users run: no name of a moment, nor of the folder in which they are armed.
func TestFailpointsAreNotInTheProgram(t *testing.T) {
	has := func(tags string) bool {
		t.Helper()
		out := filepath.Join(t.TempDir(), "crid")
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", tags, "-ldflags", "-s -w", "-o", out, "../cmd/crid")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build crid: %v\n%s", err, text)
		}
		program, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(program, []byte("CRID_FAILPOINTS")) || bytes.Contains(program, []byte("crid-project/crid/failpoint"))
	}
	if has("") {
		t.Error("the normal program holds failpoints")
	}
	if !has("failpoints") {
		t.Error("the program built with failpoints has none: this test finds nothing")
	}
}
