package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/config"
)

// stopWait bounds how long a running daemon may take to end.
const stopWait = 30 * time.Second

func resetCommand(f *flags) *cobra.Command {
	yes, verbose, o := false, false, ResetOptions{}
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Stop every container and remove all that crid has made (asks first)",
		Long: "Stops crid, ends every container, leaves every network, unmounts and removes state and records:\n" +
			"the node is as it was before crid. Images stay unless --images is given.\n" +
			"Drain the node first, if a kubelet uses it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if Reset == nil {
				return missing("reset")
			}
			c, err := f.load()
			if err != nil {
				return err
			}
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			o.Log = newLog(cmd.ErrOrStderr(), c.Log.Format, level)
			if !yes {
				if err := confirm(cmd.InOrStdin(), cmd.OutOrStdout(), c, o); err != nil {
					return err
				}
			}
			return runReset(cmd.Context(), c, o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&o.Images, "images", false, "remove images, too")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell every step")
	return cmd
}

// confirm asks on a terminal; elsewhere --yes is needed.
func confirm(in io.Reader, out io.Writer, c *config.Config, o ResetOptions) error {
	what := "every container, network and record of crid"
	if o.Images {
		what += ", and every image"
	}
	fmt.Fprintf(out, "This ends and removes %s, in %s and %s.\nGo on? [y/N] ", what, c.State, c.Root)
	line, err := bufio.NewReader(io.LimitReader(in, 100)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(out)
		return errors.New("reset needs an answer: run it on a terminal, or with --yes")
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// runReset stops the daemon, takes its place and resets.
func runReset(ctx context.Context, c *config.Config, o ResetOptions, out io.Writer) error {
	if !isDir(c.Root) && !isDir(c.State) {
		fmt.Fprintln(out, "nothing to reset")
		return nil
	}
	for _, dir := range []string{c.Root, c.State} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	unlock, err := takeOver(ctx, c, out)
	if err != nil {
		return err
	}
	defer unlock()
	if err := Reset(ctx, c, o, out); err != nil {
		return fmt.Errorf("reset is not complete (run it again): %w", err)
	}
	for _, dir := range []string{c.State, c.Root} {
		removeIfEmpty(dir)
	}
	fmt.Fprintln(out, "reset is complete")
	return nil
}

func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

// removeIfEmpty removes a directory that holds nothing but our lock.
func removeIfEmpty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "lock" {
		return
	}
	_ = os.Remove(filepath.Join(dir, "lock"))
	_ = os.Remove(dir)
}

// takeOver locks root and state, after asking a daemon that holds them to end.
func takeOver(ctx context.Context, c *config.Config, out io.Writer) (unlock func(), err error) {
	unlock, err = lockDirs(c.Root, c.State)
	if !errors.Is(err, errLocked) {
		return unlock, err
	}
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	stopped := map[int]bool{}
	for {
		for _, dir := range []string{c.Root, c.State} {
			if err := stopHolder(ctx, dir, stopped, out); err != nil {
				return nil, err
			}
		}
		// A service manager may start it anew: whoever is quicker has the lock.
		unlock, err = lockDirs(c.Root, c.State)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("crid does not end: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stopHolder sends SIGTERM, once, to the process that holds a directory's lock
// and waits for its end. The pid in the file is only a hint: it is signalled,
// through a pidfd, if that process has the lock file open.
func stopHolder(ctx context.Context, dir string, stopped map[int]bool, out io.Writer) error {
	path := filepath.Join(dir, "lock")
	f, err := os.Open(path)
	if err != nil {
		return nil // no file, no holder
	}
	defer f.Close()
	pid := holder(f)
	if pid <= 1 || pid == os.Getpid() || stopped[pid] {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	if !hasOpen(pid, f) {
		return nil
	}
	fmt.Fprintf(out, "stopping crid (pid %d)\n", pid)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return fmt.Errorf("stop crid (pid %d): %w", pid, err)
	}
	stopped[pid] = true
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 50)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for crid (pid %d): %w", pid, err)
		}
	}
	return fmt.Errorf("crid (pid %d) does not end: %w", pid, ctx.Err())
}

// hasOpen tells whether a process has the same file open.
func hasOpen(pid int, f *os.File) bool {
	want, err := f.Stat()
	if err != nil {
		return false
	}
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if st, err := os.Stat(dir + "/" + e.Name()); err == nil && os.SameFile(st, want) {
			return true
		}
	}
	return false
}
