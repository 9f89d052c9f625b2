package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/config"
)

func imagesCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "images", Short: "Import, export and list images, with or without a running crid",
	}
	cmd.AddCommand(imagesImport(f), imagesExport(f), imagesList(f), imagesPreload(f))
	return cmd
}

// openImages answers the running daemon's store, or the store itself if none
// runs: then its directories are locked until it is closed.
func openImages(ctx context.Context, c *config.Config) (ImageStore, error) {
	if a := newDaemonClient(c); a.Running(ctx) {
		return a, nil
	}
	if Images == nil {
		return nil, missing("open the image store while no crid runs")
	}
	for _, dir := range []string{c.Root, c.State} {
		if err := makeDir(dir); err != nil {
			return nil, err
		}
	}
	unlock, err := lockDirs(c.Root, c.State)
	if err != nil {
		return nil, err
	}
	s, err := Images(ctx, c)
	if err != nil {
		unlock()
		return nil, err
	}
	return &lockedImages{ImageStore: s, unlock: unlock}, nil
}

// lockedImages gives the lock back when it is closed.
type lockedImages struct {
	ImageStore
	unlock func()
}

func (l *lockedImages) Close() error {
	defer l.unlock()
	return l.ImageStore.Close()
}

// withImages loads the configuration and runs fn on the store.
func withImages(cmd *cobra.Command, f *flags, fn func(*config.Config, ImageStore) error) error {
	c, err := f.load()
	if err != nil {
		return err
	}
	s, err := openImages(cmd.Context(), c)
	if err != nil {
		return err
	}
	return errors.Join(fn(c, s), s.Close())
}

func imagesImport(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Import images from archives (OCI layout or docker save; - is standard input)",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd, f, func(_ *config.Config, s ImageStore) error {
				return importFiles(cmd, s, args)
			})
		},
	}
}

// importFiles imports one archive after the other; a bad one does not keep the
// others out.
func importFiles(cmd *cobra.Command, s ImageStore, files []string) error {
	var all error
	for _, name := range files {
		if err := importFile(cmd, s, name); err != nil {
			all = errors.Join(all, fmt.Errorf("import %s: %w", name, err))
		}
	}
	return all
}

func importFile(cmd *cobra.Command, s ImageStore, name string) error {
	in, size := cmd.InOrStdin(), int64(0)
	if name != "-" {
		st, err := os.Stat(name)
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return errors.New("not a regular file")
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		in, size = file, st.Size()
	}
	meter := &meter{r: in}
	stop := meter.show(cmd.ErrOrStderr(), name, size)
	images, err := s.Import(cmd.Context(), meter, func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) })
	stop()
	for _, img := range images {
		names := strings.Join(append(slices.Clone(img.Tags), img.Digests...), " ")
		fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", img.ID, names)
	}
	return err
}

// meter counts what is read through it.
type meter struct {
	r io.Reader
	n atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// show writes the count on a terminal, twice a second, until stop.
func (m *meter) show(w io.Writer, name string, size int64) (stop func()) {
	file, ok := w.(*os.File)
	if !ok || !isTerminal(file) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(500 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, "\r\x1b[K")
				return
			case <-t.C:
				of := ""
				if size > 0 {
					of = " of " + units.BytesSize(float64(size))
				}
				fmt.Fprintf(w, "\r\x1b[K%s: %s%s", name, units.BytesSize(float64(m.n.Load())), of)
			}
		}
	}()
	return func() { close(done); <-ended }
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func imagesExport(f *flags) *cobra.Command {
	output := ""
	cmd := &cobra.Command{
		Use: "export [-o FILE] REF...", Short: "Write images into one archive (OCI layout)", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, refs []string) error {
			if out, isFile := cmd.OutOrStdout().(*os.File); output == "" && isFile && isTerminal(out) {
				return errors.New("an archive is not for a terminal: give -o FILE")
			}
			return withImages(cmd, f, func(_ *config.Config, s ImageStore) error {
				if output == "" {
					return s.Export(cmd.Context(), cmd.OutOrStdout(), refs)
				}
				return exportTo(cmd.Context(), s, output, refs)
			})
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`FILE` instead of standard output")
	return cmd
}

// exportTo writes beside the target and renames: a file of that name is whole.
func exportTo(ctx context.Context, s ImageStore, path string, refs []string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := errors.Join(s.Export(ctx, tmp, refs), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func imagesList(f *flags) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withImages(cmd, f, func(_ *config.Config, s ImageStore) error {
				list, err := s.List(cmd.Context())
				if err != nil {
					return err
				}
				return printImages(cmd.OutOrStdout(), list, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printImages(w io.Writer, list []Image, asJSON bool) error {
	if asJSON {
		if list == nil {
			list = []Image{}
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "IMAGE\tID\tSIZE\tPINNED")
	for _, img := range list {
		names := img.Tags
		if len(names) == 0 {
			names = img.Digests
		}
		if len(names) == 0 {
			names = []string{"<none>"}
		}
		id := strings.TrimPrefix(img.ID, "sha256:")
		id = id[:min(12, len(id))]
		for _, n := range names {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%t\n", n, id, units.HumanSize(float64(img.Size)), img.Pinned)
		}
	}
	return tw.Flush()
}

func imagesPreload(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "preload [DIR]",
		Short: "Import every archive of a directory (default images.preload_dir), for nodes without a registry",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withImages(cmd, f, func(c *config.Config, s ImageStore) error {
				dir := c.Images.PreloadDir
				if len(args) == 1 {
					dir = args[0]
				}
				files, err := archives(dir)
				if err != nil {
					return err
				}
				return importFiles(cmd, s, files)
			})
		},
	}
}

// archives lists a directory's archives by their names.
func archives(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
			if strings.HasSuffix(e.Name(), suffix) && !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				out = append(out, filepath.Join(dir, e.Name()))
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no archive (*.tar, *.tar.gz, *.tgz, *.tar.zst) in %s", dir)
	}
	return out, nil
}

func explainCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "explain REF",
		Short: "Tell what would be asked, in order, to pull an image",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if Explain == nil {
				return missing("explain")
			}
			c, err := f.load()
			if err != nil {
				return err
			}
			return Explain(cmd.Context(), c, args[0], cmd.OutOrStdout())
		},
	}
}
