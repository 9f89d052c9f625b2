package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// suite is critest, ready to run against one socket.
type suite struct {
	*options
	program, socket, tmp string
}

// all makes both runs and prints what came of them, with a last line that counts.
func (s *suite) all(ctx context.Context) error {
	first := []string{"--ginkgo.seed", strconv.FormatInt(s.seed, 10)}
	if !s.ordered {
		first = append(first, "--ginkgo.randomize-all")
	}
	if s.focus != "" {
		first = append(first, "--ginkgo.focus", s.focus)
	}
	if s.skip != "" {
		first = append(first, "--ginkgo.skip", s.skip)
	}
	total, err := s.once(ctx, "all", first...)
	full := s.focus == "" && s.skip == ""
	if full && err == nil && len(total.passed) < s.least {
		err = fmt.Errorf("only %d specs passed; at least %d should, so something kept the others from running", len(total.passed), s.least)
	}
	if full && !s.noWebSocket && ctx.Err() == nil {
		second, e := s.once(ctx, "websocket", "--ginkgo.seed", strconv.FormatInt(s.seed, 10), "--ginkgo.focus", "Streaming",
			"--websocket-exec", "--websocket-attach", "--websocket-portforward")
		if e == nil && len(second.passed) < 5 {
			e = fmt.Errorf("only %d streaming specs passed over WebSocket, not 5", len(second.passed))
		}
		err = errors.Join(err, e)
		total.add(second)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", len(total.passed), len(total.failed), len(total.skipped))
	return err
}

// once is one run of the program. Its error is nil only if it ended with 0, left a report, and no spec of that failed.
func (s *suite) once(ctx context.Context, name string, args ...string) (*outcome, error) {
	fmt.Printf("critest %s: ", name)
	report := filepath.Join(s.out, name+".json")
	if err := os.Remove(report); err != nil && !os.IsNotExist(err) {
		return &outcome{}, err
	}
	log, err := os.Create(filepath.Join(s.out, name+".log"))
	if err != nil {
		return &outcome{}, err
	}
	defer log.Close()
	args = append([]string{"--config", "/dev/null", "--runtime-endpoint", "unix://" + s.socket, "--image-endpoint", "unix://" + s.socket,
		"--ginkgo.no-color", "--ginkgo.v", "--ginkgo.flake-attempts", "0", "--ginkgo.json-report", report}, args...)
	if s.handler != "" {
		args = append(args, "--runtime-handler", s.handler)
	}
	before := segments()
	start := time.Now()
	failed := s.execute(ctx, log, args)
	removeSegments(before)
	result, err := readReport(report)
	if err != nil {
		fmt.Println("no report")
		return &outcome{}, fmt.Errorf("critest left no report (%w, %w); see %s", failed, err, log.Name())
	}
	result.print(os.Stdout, time.Since(start))
	switch {
	case len(result.failed) > 0:
		return result, fmt.Errorf("%d specs failed; see %s", len(result.failed), log.Name())
	case failed != nil:
		return result, fmt.Errorf("critest: %w; see %s", failed, log.Name())
	}
	return result, nil
}

func (s *suite) execute(ctx context.Context, log io.Writer, args []string) error {
	tmp := s.tmp
	if tmp == "" {
		dir, err := os.MkdirTemp("", "critest-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		tmp = dir
	}
	cmd := exec.CommandContext(ctx, s.program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = tmp, append(os.Environ(), "TMPDIR="+tmp), log, log
	// An interrupt lets ginkgo write its report; the wait for that is bounded.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	return cmd.Run()
}
