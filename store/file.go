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
type disk[T any] struct {
	Record *T     `json:"record"`
	Config []byte `json:"config"`
}

// writeRecord replaces the file by rename. It is not synced: what a crash of
// crid leaves is in the page cache, and after a power loss no process is left
// for a lost record to describe; a torn one is detected by its checksum.
func writeRecord[T any](path string, v *T, config Sealed) error {
	raw, err := config.Marshal()
	if err != nil {
		return fmt.Errorf("marshal configuration: %w", err)
	}
	body, err := json.Marshal(disk[T]{Record: v, Config: raw})
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	sum := sha256.Sum256(body)
	var b bytes.Buffer
	b.Grow(len(body) + 128)
	fmt.Fprintf(&b, "%s %d %s %d\n", magic, version, hex.EncodeToString(sum[:]), len(body))
	b.Write(body)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b.Bytes(), filePerm); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace record: %w", err)
	}
	return nil
}

// readRecord reads one file and trusts nothing of it: not its type, its owner,
// its size, its checksum or its version.
func readRecord[T any](path string) (*T, []byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, nil, errors.New("not a regular file")
	case int(st.Uid) != os.Geteuid():
		return nil, nil, fmt.Errorf("owned by uid %d", st.Uid)
	case st.Size > maxRecord:
		return nil, nil, fmt.Errorf("%d bytes: too large for a record", st.Size)
	}
	all, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, nil, fmt.Errorf("read: %w", err)
	}
	return decodeRecord[T](all)
}

func decodeRecord[T any](all []byte) (*T, []byte, error) {
	head, body, ok := bytes.Cut(all, []byte{'\n'})
	if !ok || len(head) > 256 {
		return nil, nil, errors.New("torn: no head")
	}
	f := strings.Fields(string(head))
	if len(f) != 4 || f[0] != magic {
		return nil, nil, errors.New("no record of ours")
	}
	if v, err := strconv.Atoi(f[1]); err != nil || v != version {
		return nil, nil, fmt.Errorf("format version %q; this crid reads version %d", f[1], version)
	}
	if n, err := strconv.Atoi(f[3]); err != nil || n != len(body) {
		return nil, nil, errors.New("torn: wrong length")
	}
	sum := sha256.Sum256(body)
	if hex.EncodeToString(sum[:]) != f[2] {
		return nil, nil, errors.New("damaged: wrong checksum")
	}
	var d disk[T]
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, nil, fmt.Errorf("decode: %w", err)
	}
	if d.Record == nil {
		return nil, nil, errors.New("empty record")
	}
	return d.Record, d.Config, nil
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
