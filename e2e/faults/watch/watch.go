package watch

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/crid-project/crid/e2e/harness"
)

// AllEnv names the environment variable that has every variant of every fault run: CRID_FAULTS=all. Without it some are picked, so that all
// folders together take minutes.
const AllEnv = "CRID_FAULTS"

// All tells whether everything is to be run.
func All() bool { return os.Getenv(AllEnv) == "all" }

// Times is how often a test repeats something: few by default, many where everything is run.
func Times(few, many int) int {
	if All() {
		return many
	}
	return few
}

// Set has the daemon of a home read further configuration, as an operator's drop-in file is read. It may replace what the harness writes.
func Set(toml string) func(*harness.Home) error {
	return func(h *harness.Home) error {
		drop := filepath.Join(filepath.Dir(h.Config()), "conf.d")
		if err := os.MkdirAll(drop, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(drop, "faults.toml"), []byte(toml), 0o600)
	}
}

// Each makes one preparation of a home from several.
func Each(steps ...func(*harness.Home) error) func(*harness.Home) error {
	return func(h *harness.Home) error {
		for _, s := range steps {
			if err := s(h); err != nil {
				return err
			}
		}
		return nil
	}
}

// Field is a line such as "VmRSS:" or "Threads:" of a process's /proc/PID/status, its first number.
func Field(t testing.TB, pid int, name string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, name)
	return 0
}
