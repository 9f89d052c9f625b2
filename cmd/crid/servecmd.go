package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/crid-project/crid/config"
)

// runServe prepares what the daemon stands on, and runs it until SIGTERM or
// SIGINT; a second one ends the process at once. Workloads are left alone.
func runServe(ctx context.Context, f *flags) error {
	if Serve == nil {
		return missing("serve")
	}
	c, err := f.load()
	if err != nil {
		return err
	}
	takeNotifySocket()
	// What crid makes is for root; what a container may see gets its mode.
	syscall.Umask(0o022)
	for _, dir := range []string{c.Root, c.State} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	unlock, err := lockDirs(c.Root, c.State)
	if err != nil {
		return err
	}
	defer unlock()

	level := new(slog.LevelVar)
	level.Set(logLevel(c.Log.Level))
	log := newLog(os.Stderr, c.Log.Format, level)
	slog.SetDefault(log)

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // back to the default: the next signal kills
		_ = notify("STOPPING=1")
	}()
	go watchdog(ctx)
	log.Info("crid starts", "version", version(), "root", c.Root, "state", c.State, "address", c.Address)
	err = Serve(ctx, Daemon{
		Config:  c,
		Log:     log,
		Level:   level,
		Reloads: reloads(ctx, f, c, level, log),
		Ready: func(status string) {
			if err := notify("READY=1\nSTATUS=" + strings.ReplaceAll(status, "\n", " ")); err != nil {
				log.Warn("service manager cannot be told", "error", err)
			}
		},
	})
	if err == nil {
		log.Info("crid ends; pods go on")
	}
	return err
}

// reloads reads the configuration again at every SIGHUP. A faulty one is
// reported and changes nothing; what needs a restart is named.
func reloads(ctx context.Context, f *flags, running *config.Config, level *slog.LevelVar, log *slog.Logger) <-chan *config.Config {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	out := make(chan *config.Config, 1)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			}
			_ = notify("RELOADING=1\nMONOTONIC_USEC=" + monotonicMicros())
			c, err := f.load()
			if err != nil {
				log.Error("configuration is not taken over", "error", err)
			} else {
				live, restart := config.Changes(running, c)
				level.Set(logLevel(c.Log.Level))
				log.Info("configuration read again", "taken", live, "needs_restart", restart)
				select { // the last one counts
				case <-out:
				default:
				}
				out <- c
			}
			_ = notify("READY=1")
		}
	}()
	return out
}

// watchdog tells the service manager that the process still runs its goroutines.
func watchdog(ctx context.Context) {
	every := watchdogInterval()
	if every == 0 {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = notify("WATCHDOG=1")
		}
	}
}

// logLevel reads a level that Validate has let pass.
func logLevel(s string) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return slog.LevelInfo
	}
	return l
}

// newLog makes the daemon's log.
func newLog(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
