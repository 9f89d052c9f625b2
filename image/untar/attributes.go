package untar

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// OpaqueXattr is overlayfs's mark of a directory that hides all below.
const OpaqueXattr = "trusted.overlay.opaque"

func setOpaque(fd int) error { return unix.Fsetxattr(fd, OpaqueXattr, []byte("y"), 0) }

// xattrPrefix is how tars carry extended attributes.
const xattrPrefix = "SCHILY.xattr."

const (
	maxXattrs     = 256
	maxXattrValue = 64 << 10
)

// takenXattr says which attributes of an image are taken. Never "trusted.*":
// with trusted.overlay.redirect a layer would name directories of other
// layers. Labels of security modules are the node's to give.
func takenXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.") ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// mode is the permission part of an entry, set-id and sticky bits kept.
func mode(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

// owner answers uid and gid. Ids beyond 32 bits, and the one that means
// "unchanged" to chown, are refused.
func owner(hdr *tar.Header) (int, int, error) {
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= math.MaxUint32 || int64(hdr.Gid) >= math.MaxUint32 {
		return 0, 0, fmt.Errorf("owner %d:%d does not fit 32 bits: %w", hdr.Uid, hdr.Gid, errdefs.ErrInvalidArgument)
	}
	return hdr.Uid, hdr.Gid, nil
}

// applyAttributes sets owner, mode and extended attributes of an open file or
// directory, in the order in which the kernel does not undo them. Most files
// are right as they were made: a look is much cheaper than a change, which is
// an entry in the file system's journal.
func applyAttributes(fd int, hdr *tar.Header) error {
	uid, gid, err := owner(hdr)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at owner and mode: %w", err)
	}
	chown := st.Uid != uint32(uid) || st.Gid != uint32(gid)
	if chown {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
		}
	}
	// A change of the owner takes set-id bits away.
	if chown || st.Mode&0o7777 != mode(hdr) {
		if err := unix.Fchmod(fd, mode(hdr)); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return eachXattr(hdr, func(k string, v []byte) error { return unix.Fsetxattr(fd, k, v, 0) })
}

// attributesAt does the same for what is not to be opened (links, devices, fifos).
func (u *unpacker) attributesAt(base, name string, hdr *tar.Header) error {
	parent, err := u.dirs.open(path.Dir(name))
	if err != nil {
		return pathError("open parent", name, err)
	}
	uid, gid, err := owner(hdr)
	if err != nil {
		return err
	}
	if err := unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", uid, gid, err)
	}
	if hdr.Typeflag != tar.TypeSymlink {
		// Not a link, as we have just made it and nobody else can reach the directory.
		if err := unix.Fchmodat(parent, base, mode(hdr), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	ts := times(hdr)
	if err := unix.UtimesNanoAt(parent, base, ts[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// eachXattr calls set for the attributes that are taken. A file system without
// user attributes loses those; one that refuses a capability is an error,
// because the program would silently fail later.
func eachXattr(hdr *tar.Header, set func(string, []byte) error) error {
	n := 0
	for k, v := range hdr.PAXRecords {
		name, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok || !takenXattr(name) {
			continue
		}
		if n++; n > maxXattrs || len(v) > maxXattrValue || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("extended attribute %.100q: too many or too big: %w", name, errdefs.ErrInvalidArgument)
		}
		err := set(name, []byte(v))
		if err == nil || (name != "security.capability" && (errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM))) {
			continue
		}
		return fmt.Errorf("set extended attribute %s: %w", name, err)
	}
	return nil
}

// setTimesFd sets times with nanoseconds through a descriptor.
func setTimesFd(fd int, ts [2]unix.Timespec) error {
	err := unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
