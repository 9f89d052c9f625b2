package untar

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// dirs opens directories inside one root and keeps the last few open, because
// a tar's entries come directory by directory.
type dirs struct {
	root  int
	cache map[string]int
	order []string
}

const (
	cachedDirs = 64
	// inRoot lets links and ".." of the layer lead anywhere but out of its directory.
	inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV
	// maxDangling bounds how many links that lead nowhere yet are followed by hand.
	maxDangling = 40
)

func openDirs(dir string) (*dirs, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, pathError("open", dir, err)
	}
	return &dirs{root: fd, cache: map[string]int{}}, nil
}

func (d *dirs) rootFd() int { return d.root }

func (d *dirs) close() {
	d.forget()
	unix.Close(d.root)
}

// forget drops the cache: a directory or link that names may lead through has changed.
func (d *dirs) forget() {
	for _, fd := range d.cache {
		unix.Close(fd)
	}
	clear(d.cache)
	d.order = d.order[:0]
}

// openat2 retries what the kernel asks to retry.
func openat2(dir int, name string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for range 64 {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// open answers a directory's descriptor, owned by the cache until the next
// call of forget or until it is pushed out: use it at once.
func (d *dirs) open(name string) (int, error) {
	if name == "." {
		return d.root, nil
	}
	if fd, ok := d.cache[name]; ok {
		return fd, nil
	}
	fd, err := openat2(d.root, name, unix.O_RDONLY|unix.O_DIRECTORY, inRoot)
	if err != nil {
		return -1, err
	}
	if len(d.order) >= cachedDirs {
		old := d.order[0]
		d.order = append(d.order[:0], d.order[1:]...)
		unix.Close(d.cache[old])
		delete(d.cache, old)
	}
	d.cache[name] = fd
	d.order = append(d.order, name)
	return fd, nil
}

// openNoFollow opens a directory by a path that holds no link; the caller closes it.
func (d *dirs) openNoFollow(name string) (int, error) {
	return openat2(d.root, name, unix.O_RDONLY|unix.O_DIRECTORY, inRoot|unix.RESOLVE_NO_SYMLINKS)
}

// parent opens the directory that an entry goes into, making what is missing.
func (u *unpacker) parent(name string) (int, error) {
	fd, err := u.dirs.open(name)
	if err == nil {
		return fd, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return -1, pathError("open parent", name, err)
	}
	if err := u.makeParents(name, maxDangling); err != nil {
		return -1, err
	}
	if fd, err = u.dirs.open(name); err != nil {
		return -1, pathError("open parent", name, err)
	}
	return fd, nil
}

// makeParents makes every missing directory of a path. A link that leads
// nowhere is followed by hand, because its target is to be made: "var/run" is
// a link to "/run", which is another layer's directory.
func (u *unpacker) makeParents(name string, links int) error {
	at := "."
	rest := strings.Split(name, "/")
	for i, c := range rest {
		next := path.Join(at, c)
		_, err := u.dirs.open(next)
		if err == nil {
			at = next
			continue
		}
		if !errors.Is(err, unix.ENOENT) {
			return pathError("open parent", next, err)
		}
		parent, err := u.dirs.open(at)
		if err != nil {
			return pathError("open parent", at, err)
		}
		err = unix.Mkdirat(parent, c, 0o755)
		if err == nil {
			if err := u.made(parent, c, next); err != nil {
				return err
			}
			at = next
			continue
		}
		if !errors.Is(err, unix.EEXIST) {
			return pathError("mkdir", next, err)
		}
		if links == 0 {
			return fmt.Errorf("too many links on the way to %s: %w", name, errdefs.ErrInvalidArgument)
		}
		target, err := readlinkat(parent, c)
		if err != nil {
			return pathError("readlink", next, err)
		}
		if !path.IsAbs(target) {
			target = path.Join("/", at, target)
		}
		target, err = clean(path.Join(append([]string{target}, rest[i+1:]...)...))
		if err != nil {
			return err
		}
		return u.makeParents(target, links-1)
	}
	return nil
}

// made gives a directory that no entry described yet its first attributes.
func (u *unpacker) made(parent int, base, name string) error {
	if len(u.implied) >= 4*maxNeeds {
		return fmt.Errorf("more than %d directories are used but not described: %w", 4*maxNeeds, errdefs.ErrResourceExhausted)
	}
	u.implied[name] = false
	u.res.Entries++
	u.res.Inodes++
	u.res.Disk += block
	// The mode is set again because of the umask.
	if err := unix.Fchmodat(parent, base, 0o755, 0); err != nil {
		return pathError("chmod", name, err)
	}
	return nil
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
