//go:build kube

package multinode

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// fabric is the network between the nodes: a namespace with a bridge, to which each node has a cable.
type fabric struct {
	dir string // where namespaces are pinned
}

const (
	bridgeName = "fabric"
	controlIP  = "10.99.80.254"
)

func nodeIP(n int) string { return fmt.Sprintf("10.99.80.%d", n) }
func cable(n int) string  { return fmt.Sprintf("cable%d", n) }

// path of a namespace: 0 is the fabric's own.
func (f *fabric) path(n int) string { return filepath.Join(f.dir, fmt.Sprintf("net%d", n)) }

// in runs do in namespace n, on a thread that is thrown away if it cannot be brought back.
func (f *fabric) in(n int, do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			result <- err
			return
		}
		defer home.Close()
		there, err := netns.GetFromPath(f.path(n))
		if err != nil {
			result <- err
			return
		}
		defer there.Close()
		if err := netns.Set(there); err != nil {
			result <- err
			return
		}
		err = do()
		if back := netns.Set(home); back != nil {
			result <- errors.Join(err, back)
			return // locked: the thread ends with the goroutine
		}
		runtime.UnlockOSThread()
		result <- err
	}()
	return <-result
}

// pin makes a namespace and keeps it by a bind mount.
func (f *fabric) pin(n int) error {
	if err := os.WriteFile(f.path(n), nil, 0o600); err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), f.path(n), "", unix.MS_BIND, "")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		return fmt.Errorf("make namespace %d: %w", n, err)
	}
	return f.in(n, func() error { return up("lo") })
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(link)
}

func address(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

// newFabric makes the namespaces 0 to nodes and the cables.
func newFabric(t *testing.T, nodes int) *fabric {
	t.Helper()
	f := &fabric{dir: t.TempDir()}
	t.Cleanup(func() {
		for n := range nodes + 1 {
			if err := unix.Unmount(f.path(n), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Errorf("unpin namespace %d: %v", n, err)
			}
		}
	})
	for n := range nodes + 1 {
		if err := f.pin(n); err != nil {
			t.Fatal(err)
		}
	}
	err := f.in(0, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}); err != nil {
			return err
		}
		return address(bridgeName, controlIP+"/24")
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= nodes; n++ {
		if err := f.connect(n); err != nil {
			t.Fatalf("connect node %d: %v", n, err)
		}
	}
	return f
}

// connect gives node n a device eth0 whose other end is in the bridge.
func (f *fabric) connect(n int) error {
	there, err := netns.GetFromPath(f.path(n))
	if err != nil {
		return err
	}
	defer there.Close()
	err = f.in(0, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: cable(n)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(there)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		end, err := netlink.LinkByName(cable(n))
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(end, bridge), netlink.LinkSetUp(end))
	})
	if err != nil {
		return err
	}
	return f.in(n, func() error {
		if err := address("eth0", nodeIP(n)+"/24"); err != nil {
			return err
		}
		return route(netip.MustParsePrefix("0.0.0.0/0"), controlIP)
	})
}

// route is added in the namespace that the caller is in.
func route(to netip.Prefix, via string) error {
	_, dst, err := net.ParseCIDR(to.String())
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)})
}

// pull takes node n's cable out, or puts it back.
func (f *fabric) plug(n int, in bool) error {
	return f.in(0, func() error {
		link, err := netlink.LinkByName(cable(n))
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}
