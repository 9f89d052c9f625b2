package shimclient

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The shim was replaced by a copy in its place, and pods that started meanwhile failed: text file busy.
func TestAProgramThatIsBeingWrittenIsTriedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shim")
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skipf("needs a small program: %v", err)
	}
	if err := os.WriteFile(path, program, 0o700); err != nil {
		t.Fatal(err)
	}
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(150*time.Millisecond, func() { writer.Close() })
	if _, err := (command{path: path, timeout: 10 * time.Second}).run(t.Context()); err != nil {
		t.Error(err)
	}
}
