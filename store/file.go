package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The head of a record: see FORMAT.md.
const (
	magic      = "crid-record"
	version    = 1
	maxRecord  = 16 << 20 // bytes; a larger file is no record of ours
	filePerm   = 0o600
	folderPerm = 0o700
)

// disk is one record as it lies on disk: the fields, and the sealed bytes.
type disk struct {
	Record json.RawMessage `json:"record"`
	Config []byte          `json:"config"`
}

// writeRecord replaces the file by rename. It is not synced: what a crash of
// crid leaves is in the page cache, and after a power loss no process is left
// for a lost record to describe; a torn one is detected by its checksum.
func writeRecord[T any](to Disk, path string, v *T, config Sealed, more unknown) error {
	raw, err := config.Marshal()
	if err != nil {
		return fmt.Errorf("marshal configuration: %w", err)
	}
	body, err := encodeBody(v, raw, more)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	sum := sha256.Sum256(body)
	var b bytes.Buffer
	b.Grow(len(body) + 128)
	fmt.Fprintf(&b, "%s %d %s %d\n", magic, version, hex.EncodeToString(sum[:]), len(body))
	b.Write(body)
	return to.Replace(path, b.Bytes())
}

// Disk writes records. The real one is used where none is given.
type Disk interface {
	// Replace gives the file at path new content: all of it or none.
	Replace(path string, content []byte) error
	// Remove removes a file; one that is not there is no error.
	Remove(path string) error
}

type realDisk struct{}

func (realDisk) Replace(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, filePerm); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace record: %w", err)
	}
	return nil
}

func (realDisk) Remove(path string) error {
	for _, p := range []string{path + ".new", path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove record: %w", err)
		}
	}
	return nil
}

func encodeBody[T any](v *T, config []byte, more unknown) ([]byte, error) {
	rec, err := json.Marshal(v)
	if err == nil {
		rec, err = more.inside.appendTo(rec)
	}
	if err != nil {
		return nil, err
	}
	sealed, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	// As json.Marshal of disk, without a second pass over the record.
	body := slices.Concat([]byte(`{"record":`), rec, []byte(`,"config":`), sealed, []byte("}"))
	return more.beside.appendTo(body)
}

// readRecord reads one file and trusts nothing of it: not its type, its owner,
// its size, its checksum or its version.
func readRecord[T any](path string) (d decoded[T], err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return d, fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return d, fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return d, errors.New("not a regular file")
	case int(st.Uid) != os.Geteuid():
		return d, fmt.Errorf("owned by uid %d", st.Uid)
	case st.Size > maxRecord:
		return d, fmt.Errorf("%d bytes: too large for a record", st.Size)
	}
	all, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return d, fmt.Errorf("read: %w", err)
	}
	return decodeRecord[T](all)
}

// decoded is what a record says.
type decoded[T any] struct {
	record  *T
	config  []byte
	unknown unknown
}

func decodeRecord[T any](all []byte) (d decoded[T], err error) {
	head, body, ok := bytes.Cut(all, []byte{'\n'})
	if !ok || len(head) > 256 {
		return d, errors.New("torn: no head")
	}
	f := strings.Fields(string(head))
	if len(f) != 4 || f[0] != magic {
		return d, errors.New("no record of ours")
	}
	if v, err := strconv.Atoi(f[1]); err != nil || v != version {
		return d, fmt.Errorf("format version %q; this crid reads version %d", f[1], version)
	}
	if n, err := strconv.Atoi(f[3]); err != nil || n != len(body) {
		return d, errors.New("torn: wrong length")
	}
	sum := sha256.Sum256(body)
	if hex.EncodeToString(sum[:]) != f[2] {
		return d, errors.New("damaged: wrong checksum")
	}
	var on disk
	if err := json.Unmarshal(body, &on); err != nil {
		return d, fmt.Errorf("decode: %w", err)
	}
	if err := json.Unmarshal(on.Record, &d.record); err != nil {
		return d, fmt.Errorf("decode: %w", err)
	}
	if d.record == nil {
		return d, errors.New("empty record")
	}
	if d.unknown.beside, err = unknownFields[disk](body); err != nil {
		return d, fmt.Errorf("decode: %w", err)
	}
	if d.unknown.inside, err = unknownFields[T](on.Record); err != nil {
		return d, fmt.Errorf("decode: %w", err)
	}
	d.config = on.Config
	return d, nil
}

// quarantine moves a file out of the way, whatever it is. It never follows a
// link and never deletes.
func quarantine(path, dir string) error {
	if err := os.MkdirAll(dir, folderPerm); err != nil {
		return err
	}
	for i := range 1000 {
		to := filepath.Join(dir, filepath.Base(path)+"."+strconv.Itoa(i))
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			return os.Rename(path, to)
		}
	}
	return errors.New("quarantine is full; look into it and remove what is not needed")
}
