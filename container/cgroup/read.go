package cgroup

import (
	"errors"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// Unlimited stands for "no limit" in every limit of this package.
const Unlimited = math.MaxUint64

// Bounds of one file: nothing the kernel writes here is larger, but a reader
// of a hostile directory must end.
const (
	firstRead = 8 << 10
	mostRead  = 4 << 20
)

// buffers are reused between reads: a scrape of hundreds of containers reads
// thousands of small files.
var buffers = sync.Pool{New: func() any { b := make([]byte, firstRead); return &b }}

// withFile hands a file's content to fn, which must not keep it. False if
// the file cannot be read.
func withFile(dirfd int, name string, fn func([]byte)) bool {
	return readFile(dirfd, name, fn) == nil
}

// readFile is withFile with the reason for a failure.
func readFile(dirfd int, name string, fn func([]byte)) error {
	fd, err := openat(dirfd, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	bp, ok := buffers.Get().(*[]byte)
	if !ok {
		return unix.ENOMEM // the pool holds nothing else
	}
	defer func() {
		if len(*bp) <= 4*firstRead { // do not keep a giant for ever
			buffers.Put(bp)
		}
	}()
	n := 0
	for {
		if n == len(*bp) {
			if n >= mostRead {
				return unix.EFBIG
			}
			grown := make([]byte, 2*n)
			copy(grown, *bp)
			*bp = grown
		}
		m, err := unix.Read(fd, (*bp)[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if m == 0 {
			break
		}
		n += m
	}
	fn((*bp)[:n])
	return nil
}

// openat opens without following a last link and retries when interrupted.
func openat(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openDir opens a directory as the base of later reads.
func openDir(dir string) (int, error) {
	return openat(unix.AT_FDCWD, dir, unix.O_DIRECTORY|unix.O_PATH)
}

// readUint reads a file that holds one number; "max", "-1" and what does not
// fit are Unlimited. False if the file is missing or unreadable.
func readUint(dirfd int, name string) (v uint64, ok bool) {
	withFile(dirfd, name, func(b []byte) { v, ok = parseUint(trim(b)) })
	return v, ok
}

// writeFile writes a value to an existing control file.
func writeFile(path, value string) error {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(value))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
