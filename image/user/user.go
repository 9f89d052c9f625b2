package user

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/crid-project/crid/image/inroot"
)

// Want is whom CRI asks for. Its fields are those of container/plan.User, so
// that one converts to the other.
type Want struct {
	UID, GID           *int64
	Name               string
	SupplementalGroups []int64
	Strict             bool
}

// Resolved is whom a container runs as.
type Resolved struct {
	UID, GID uint32
	// Groups are the additional groups: the primary one is always first, then
	// the others in rising order without doubles.
	Groups []uint32
	// Username is the account's name in the image, "" if it has none.
	Username string
	// Home is the account's home directory, "/" if none is known. It is the
	// image's word: a path by its first letter and nothing more.
	Home string
}

// Resolve finds the user for a container whose root file system is at root.
//
// imageUser is the image's USER. CRI's wish replaces it whole: a user id or
// name of CRI's leaves nothing of the image's, its group included (what the
// peers do, and the kubelet relies on). A name that the image does not know is
// ErrNotFound; what is no valid USER is ErrInvalidArgument, as are passwd and
// group files that are not regular files of at most 1 MiB. A user id without
// an account runs with group 0, and without home.
func Resolve(root, imageUser string, want Want) (Resolved, error) {
	user, group, err := choose(imageUser, want)
	if err != nil {
		return Resolved{}, err
	}
	r, err := inroot.OpenRoot(root)
	if err != nil {
		return Resolved{}, fmt.Errorf("resolve user: %w", err)
	}
	defer r.Close()
	acc, found, err := findUser(r, user)
	if err != nil {
		return Resolved{}, err
	}
	out := Resolved{UID: acc.uid, GID: acc.gid, Username: acc.name, Home: home(acc.home)}
	if !group.unset() {
		if out.GID, err = findGroup(r, group); err != nil {
			return Resolved{}, err
		}
	}
	extra, err := supplemental(r, acc, found, want)
	if err != nil {
		return Resolved{}, err
	}
	extra = slices.DeleteFunc(extra, func(g uint32) bool { return g == out.GID })
	out.Groups = append([]uint32{out.GID}, extra...)
	if len(out.Groups) > maxGroups {
		return Resolved{}, fmt.Errorf("resolve user: %d groups, the kernel takes %d: %w", len(out.Groups), maxGroups, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

// choose decides between CRI's wish and the image's.
func choose(imageUser string, want Want) (user, group ref, err error) {
	id := func(name string, v *int64) (ref, error) {
		if v == nil {
			return ref{}, nil
		}
		if *v < 0 || *v > MaxID {
			return ref{}, fmt.Errorf("resolve user: %s %d: an id is from 0 to %d: %w", name, *v, MaxID, errdefs.ErrInvalidArgument)
		}
		u := uint32(*v)
		return ref{id: &u}, nil
	}
	if group, err = id("group", want.GID); err != nil {
		return ref{}, ref{}, err
	}
	switch {
	case want.UID != nil && want.Name != "":
		return ref{}, ref{}, fmt.Errorf("resolve user: both an id and a name are asked for: %w", errdefs.ErrInvalidArgument)
	case want.UID != nil:
		user, err = id("user", want.UID)
	case want.Name != "":
		user, err = parseRef(want.Name, want.Name)
	case want.GID != nil:
		return ref{}, ref{}, fmt.Errorf("resolve user: a group is asked for without a user: %w", errdefs.ErrInvalidArgument)
	default:
		return parseUser(imageUser)
	}
	return user, group, err
}

// findUser looks the account up: by id it need not exist, by name it must. No
// user at all is root.
func findUser(r *inroot.Root, user ref) (account, bool, error) {
	if user.name == "" {
		var uid uint32
		if user.id != nil {
			uid = *user.id
		}
		acc, found, err := findAccount(r, func(a account) bool { return a.uid == uid })
		if err != nil || !found {
			return account{uid: uid}, false, err
		}
		return acc, true, nil
	}
	acc, found, err := findAccount(r, func(a account) bool { return a.name == user.name })
	if err == nil && !found {
		err = fmt.Errorf("resolve user %q: the image's %s has no such user: %w", user.name, passwdFile, errdefs.ErrNotFound)
	}
	return acc, found, err
}

func findGroup(r *inroot.Root, group ref) (uint32, error) {
	if group.id != nil {
		return *group.id, nil
	}
	found, err := groups(r, func(m membership) bool { return m.name == group.name })
	if err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("resolve group %q: the image's %s has no such group: %w", group.name, groupFile, errdefs.ErrNotFound)
	}
	return found[0].gid, nil
}

// supplemental returns CRI's groups, with those of the image's group file that
// list the account unless the policy is strict; sorted, without doubles.
func supplemental(r *inroot.Root, acc account, found bool, want Want) ([]uint32, error) {
	var out []uint32
	for _, g := range want.SupplementalGroups {
		if g < 0 || g > MaxID {
			return nil, fmt.Errorf("resolve user: supplemental group %d: an id is from 0 to %d: %w", g, MaxID, errdefs.ErrInvalidArgument)
		}
		out = append(out, uint32(g))
	}
	if !want.Strict && found && acc.name != "" {
		in, err := groups(r, func(m membership) bool { return slices.Contains(m.members, acc.name) })
		if err != nil {
			return nil, err
		}
		for _, m := range in {
			out = append(out, m.gid)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// home keeps a home directory that can stand in an environment.
func home(h string) string {
	if h == "" || h[0] != '/' || strings.ContainsAny(h, "\x00\r\n") {
		return "/"
	}
	return h
}
