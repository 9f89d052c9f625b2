//go:build e2e

package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/crid-project/crid/e2e/harness"
)

func TestTheLogHasTheFormatOfCRI(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "log", nil)
	config := harness.Container("c", "sh", "-c", "echo one; printf two >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")
	p.exited(p.start(config))
	format := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (stdout|stderr) [PF] .*\n$`)
	for line := range strings.Lines(readFile(t, p.log(config))) {
		if !format.MatchString(line) {
			t.Errorf("not of the format: %.80q", line)
		}
		if len(line) > 17<<10 {
			t.Errorf("a line of %d bytes: the kubelet expects at most 16 KiB of text", len(line))
		}
	}
	if out := p.logged(config, "stdout"); out != "one\n"+strings.Repeat("x", 40000)+"\nend\n" {
		t.Errorf("standard output is not what was written: %d bytes, %.40q...", len(out), out)
	}
	if errs := p.logged(config, "stderr"); strings.TrimSuffix(errs, "\n") != "two" {
		t.Errorf("standard error is %q", errs)
	}
}

func TestRotationLosesNothing(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "rotate", nil)
	config := harness.Container("c", "sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i%100)) != 0 ] || sleep 0.1; done")
	id := p.start(config)
	log := p.log(config)
	for n, old := range []string{log + ".1", log + ".2"} {
		eventually(t, "something in the log", 10*time.Second, func() bool { info, err := os.Stat(log); return err == nil && info.Size() > 0 })
		if err := os.Rename(log, old); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
			t.Fatalf("rotation %d: %v", n+1, err)
		}
		if _, err := os.Stat(log); err != nil {
			t.Fatalf("rotation %d: no new file when the call returns: %v", n+1, err)
		}
	}
	p.exited(id)
	all := readFile(t, log+".1") + readFile(t, log+".2") + readFile(t, log)
	if n := strings.Count(all, " line "); n != 3000 {
		t.Errorf("%d lines in three files, not 3000", n)
	}
	if !strings.Contains(readFile(t, log), " line 3000\n") {
		t.Error("the last line is not in the last file")
	}
	if _, err := d.Runtime.ReopenContainerLog(t.Context(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err == nil {
		t.Error("the log of a container that does not run is reopened")
	}
}

func TestMuchOutputIsKept(t *testing.T) {
	d := harness.Start(t, harness.Options{})
	p := run(t, d, "much", nil)
	config := harness.Container("c", "sh", "-c", "yes 0123456789012345678901234567890123456789 | head -n 200000")
	p.exited(p.start(config))
	if n := strings.Count(readFile(t, p.log(config)), "\n"); n != 200000 {
		t.Errorf("%d lines when the end is told, not 200000", n)
	}
}
