package main

import (
	"context"
	"io"
	"log/slog"

	"github.com/crid-project/crid/config"
)

// Daemon is what the command line hands to serve.
type Daemon struct {
	// Config is complete and valid. Root and state exist with mode 0700 and
	// are locked for this process.
	Config *config.Config
	// Log writes as log.level and log.format say; its level follows SIGHUP.
	Log *slog.Logger
	// Level is what changes Log's level.
	Level *slog.LevelVar
	// Reloads brings a new, valid configuration after SIGHUP. Only keys that
	// are marked live (config.Changes) may be taken over; the last one counts.
	Reloads <-chan *config.Config
	// Ready tells the service manager that requests are answered.
	Ready func(status string)
}

// ResetOptions say how far crid reset goes.
type ResetOptions struct {
	// Images removes images and layers, too.
	Images bool
	// Log is where details go.
	Log *slog.Logger
}

// The hooks are what the wiring (serve.go) provides. A nil one answers that
// this build does not have it.
var (
	// Serve runs the daemon until ctx ends; workloads live on after it.
	Serve func(ctx context.Context, d Daemon) error
	// Reset stops every container, removes networks and mounts, and empties
	// state and records; what it did goes to out, a line each. No daemon runs
	// meanwhile: root and state are locked. Idempotent.
	Reset func(ctx context.Context, c *config.Config, o ResetOptions, out io.Writer) error
	// Images opens the image store without a daemon, under its lock.
	Images func(ctx context.Context, c *config.Config) (ImageStore, error)
	// Explain prints what would be asked, in order, to pull a reference.
	Explain func(ctx context.Context, c *config.Config, ref string, out io.Writer) error
)

// Image is one line of "crid images list".
type Image struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Digests []string `json:"digests"`
	Size    int64    `json:"size"`
	Pinned  bool     `json:"pinned"`
}

// ImageStore is the image store as the command line needs it. The daemon's
// admin socket offers the same.
type ImageStore interface {
	// Import reads a tar archive (OCI layout or docker save) and names what it
	// brought; progress may be called with a line for the user.
	Import(ctx context.Context, archive io.Reader, progress func(string)) ([]Image, error)
	// Export writes the images as one archive.
	Export(ctx context.Context, w io.Writer, refs []string) error
	// List answers all images.
	List(ctx context.Context) ([]Image, error)
	Close() error
}
