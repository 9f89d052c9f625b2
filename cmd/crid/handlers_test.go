package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/crid-project/crid/config"
)

// Who has a runc with known escapes must hear of it before a container runs,
// and pods that are there must still be ended.
func TestNewPodsOnARuncWithEscapesAreRefused(t *testing.T) {
	features := func(version string) string {
		return fmt.Sprintf(`echo '{"annotations":{"org.opencontainers.runc.version":%q}}'`, version)
	}
	for name, test := range map[string]struct {
		program, script string
		allowed, refuse bool
	}{
		"one of old":                       {"runc", features("1.2.7"), false, true},
		"the same under another name":      {"my-runc", features("1.3.2"), false, true},
		"allowed":                          {"runc", features("1.2.7"), true, false},
		"new":                              {"runc", features("1.2.8"), false, false},
		"too old to tell its features":     {"runc", `[ "$1" = --version ] && echo "runc version 1.0.3"`, false, true},
		"no runc, whatever its version is": {"crun", `[ "$1" = --version ] && echo "crun version 1.0.3"`, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{test.program: test.script, "containerd-shim-runc-v2": "exit 1"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			text := fmt.Sprintf("version = 1\nruntime_search_paths = [%q]\nallow_vulnerable_runtime = %t\n[runtimes.runc.options]\nBinaryName = %q\n",
				dir, test.allowed, test.program)
			c, err := config.Parse("f", []byte(text), config.Overrides{})
			if err != nil {
				t.Fatal(err)
			}
			h := resolveHandlers(c, slog.New(slog.DiscardHandler))
			pod, err := h.pod("runc")
			if err != nil {
				t.Fatalf("the handler cannot even end its pods: %v", err)
			}
			err = pod.Refused()
			if !test.refuse && err != nil || test.refuse && (!errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), "allow_vulnerable_runtime")) {
				t.Errorf("refused %v", err)
			}
		})
	}
}
