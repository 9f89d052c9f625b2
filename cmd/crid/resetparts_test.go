package main

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crid-project/crid/config"
)

// wreck is a node on which crid died, long ago, with garbage everywhere.
func wreck(t *testing.T) *config.Config {
	t.Helper()
	_, c := place(t)
	dir := filepath.Dir(c.Root)
	c.CNI.ConfDir, c.CNI.BinDirs = filepath.Join(dir, "net.d"), []string{filepath.Join(dir, "bin")}
	c.CgroupParent, c.CgroupDriver = "/crid-reset-test-"+filepath.Base(dir), "cgroupfs"
	id := strings.Repeat("ab", 32)
	for _, path := range []string{
		"r/ledger/pods/" + id, "r/ledger/containers/" + id, "r/ledger/quarantine/x.0",
		"r/containers/" + id + "/fs/etc/passwd", "r/volumes/" + id + "/0/data", "r/images/records/garbage.json",
		"r/cni/results/x", "r/preload/mine.tar",
		"s/pods/" + id + "/config.json", "s/containers/" + id + "/config.json", "s/fenced/" + id + "/config.json",
		"s/runc/crid/" + id + "/state.json", "s/s/" + id, "s/pause/rootfs/pause", "s/somebody's",
	} {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte("garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func runReal(t *testing.T, c *config.Config, images bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := reset(ctx, c, ResetOptions{Images: images, Log: slog.New(slog.DiscardHandler)}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	return out.String()
}

// leftIn lists all files below a folder.
func leftIn(t *testing.T, dir string) string {
	t.Helper()
	var files []string
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dir+"/"))
		}
		return nil
	})
	return strings.Join(files, " ")
}

func TestResetOfAWreck(t *testing.T) {
	c := wreck(t)
	out := runReal(t, c, false)
	if got := leftIn(t, c.State); got != "somebody's" {
		t.Errorf("left in state: %s\n%s", got, out)
	}
	for _, dir := range []string{"ledger", "containers", "volumes", "cni"} {
		if _, err := os.Lstat(filepath.Join(c.Root, dir)); err == nil {
			t.Errorf("%s is left\n%s", dir, out)
		}
	}
	if _, err := os.Lstat(filepath.Join(c.Root, "images")); err != nil {
		t.Error("images went without being asked for")
	}
	if !strings.Contains(out, "cannot be read") {
		t.Errorf("records that cannot be read are not told:\n%s", out)
	}
	runReal(t, c, true)
	if got := leftIn(t, c.Root); got != "preload/mine.tar" {
		t.Errorf("left in root: %s", got)
	}
	runReal(t, c, true) // once more, of nothing
}

// The ledger and the image store are not even folders.
func TestResetWithoutRecordsAndImages(t *testing.T) {
	c := wreck(t)
	for _, name := range []string{"ledger", "images"} {
		path := filepath.Join(c.Root, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("a file"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := runReal(t, c, true)
	if got := leftIn(t, c.State) + " " + leftIn(t, c.Root); got != "somebody's preload/mine.tar" {
		t.Errorf("left: %s\n%s", got, out)
	}
}
