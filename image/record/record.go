package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// MaxSize bounds a record, in bytes. An image's holds its configuration (8 MiB
// at most, 4/3 of that as base64) and manifest.
const MaxSize = 24 << 20

// ErrCorrupt is what Read answers for a file that is no whole record.
var ErrCorrupt = errors.New("record is not readable")

var table = crc64.MakeTable(crc64.ECMA)

// Write replaces the file at path. With durable it is on disk when Write
// returns, and so is all that the same directory's file system had been told
// before on a journaling file system.
func Write(path string, v any, durable bool) (err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	if len(data)+32 > MaxSize {
		return fmt.Errorf("write record %s: %d bytes: %w", path, len(data), errdefs.ErrInvalidArgument)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = fmt.Fprintf(f, "%016x\n", crc64.Checksum(data, table)); err == nil {
		_, err = f.Write(data)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil && durable {
		err = SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write record %s: %w", path, err)
	}
	return nil
}

// Read reads the record at path into v. A file that is too big, no regular
// file or does not match its checksum wraps ErrCorrupt; links are not followed.
func Read(path string, v any) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("read record %s: %w", path, os.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("read record %s: %w: %w", path, err, ErrCorrupt)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > MaxSize {
		return fmt.Errorf("read record %s: not a regular file of at most %d bytes: %w", path, MaxSize, ErrCorrupt)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize))
	if err != nil {
		return fmt.Errorf("read record %s: %w: %w", path, err, ErrCorrupt)
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(head) != fmt.Sprintf("%016x", crc64.Checksum(body, table)) {
		return fmt.Errorf("read record %s: checksum does not match: %w", path, ErrCorrupt)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read record %s: %w: %w", path, err, ErrCorrupt)
	}
	return nil
}

// SyncDir makes a directory's entries durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
