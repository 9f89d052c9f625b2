package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/crid-project/crid/hack/kube/cluster"
)

// suite runs the specs, several at a time, and prints what came of them. The last line counts.
func (w *world) suite(ctx context.Context) error {
	ginkgo, err := cluster.Bin("ginkgo")
	if err != nil {
		return err
	}
	program, err := cluster.Bin("e2e_node.test")
	if err != nil {
		return err
	}
	report := filepath.Join(w.out, "report.json")
	if err := os.Remove(report); err != nil && !os.IsNotExist(err) {
		return err
	}
	work := filepath.Join(w.home.Dir, "suite") // it leaves files where it runs
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(w.out, "suite.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"--procs=" + strconv.Itoa(w.procs), "--no-color", "--v", "--silence-skips", "--seed=" + strconv.FormatInt(w.seed, 10), "--timeout=" + w.limit.String(),
		"--label-filter=" + w.filter, "--focus=" + w.focus, "--skip=" + w.skip, "--output-dir=" + w.out, "--json-report=report.json", program, "--",
		"--start-services=false", "--prepull-images=false", "--bearer-token=" + w.token, "--node-name=" + nodeName, "--feature-gates=" + gate + "=true", "--container-runtime-endpoint=unix://" + w.home.Socket()}
	cmd := exec.CommandContext(ctx, ginkgo, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = work, append(os.Environ(), "TMPDIR="+w.home.Tmp()), log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // lets it write its report
	cmd.WaitDelay = time.Minute
	begun := time.Now()
	failed := cmd.Run()
	result, err := readReport(report)
	if err != nil {
		return fmt.Errorf("the suite left no report (%w, %w); see %s", failed, err, log.Name())
	}
	reasons, unjust := result.judge(cannots)
	result.print(os.Stdout, reasons)
	fmt.Printf("%s: %d passed, %d failed (%d of them cannot pass on this machine), %d skipped, %.0f s\n",
		w.runtime, len(result.passed), len(result.failed), len(reasons), len(result.skipped), time.Since(begun).Seconds())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(result.failed) == 0:
		return failed
	}
	return unjust
}
