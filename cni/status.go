package cni

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// Ready is CRI's NetworkReady: true if pods can be attached now, else what is
// wrong and what to do about it. It does not wait for anything: the plugins'
// own opinion (STATUS, CNI 1.1) is the last one known, and asked for anew in
// the background when it is older than ten seconds.
func (n *Networks) Ready() (ok bool, reason string) {
	list, err := n.network()
	if err != nil {
		return false, n.current.Load().reason
	}
	for _, p := range list.Plugins {
		for _, name := range []string{p.Network.Type, p.Network.IPAM.Type} {
			if name == "" {
				continue // no IPAM plugin
			}
			if _, err := n.find(name); err != nil {
				return false, fmt.Sprintf("network %q: %v: install the CNI plugins or correct bin_dirs", list.Name, err)
			}
		}
	}
	if !speaks(list, "1.1.0") {
		return true, ""
	}
	s := n.status.Load()
	if s == nil || s.list != list || time.Since(s.at) > statusFresh {
		n.askStatus(list)
	}
	if s != nil && s.list == list && s.err != nil {
		return false, fmt.Sprintf("network %q: %v", list.Name, s.err)
	}
	return true, ""
}

const (
	statusFresh   = 10 * time.Second
	statusTimeout = 5 * time.Second
)

type statusAnswer struct {
	list *libcni.NetworkConfigList
	at   time.Time
	err  error
}

// askStatus asks the plugins in the background, once at a time.
func (n *Networks) askStatus(list *libcni.NetworkConfigList) {
	if !n.asking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer n.asking.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
		defer cancel()
		err := n.status11(ctx, list)
		if err != nil {
			n.log.Warn("network is not ready", "network", list.Name, "error", err)
		}
		n.status.Store(&statusAnswer{list: list, at: time.Now(), err: err})
	}()
}

// Status asks the plugins now (STATUS of CNI 1.1; networks of an older version
// have no opinion).
func (n *Networks) Status(ctx context.Context) error {
	list, err := n.network()
	if err != nil {
		return fmt.Errorf("ask network status: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	err = n.status11(ctx, list)
	n.status.Store(&statusAnswer{list: list, at: time.Now(), err: err})
	return err
}

func (n *Networks) status11(ctx context.Context, list *libcni.NetworkConfigList) error {
	if !speaks(list, "1.1.0") {
		return nil
	}
	for _, p := range list.Plugins {
		conf, err := configure(list, p, nil, nil)
		if err != nil {
			return err
		}
		if err := n.run(ctx, p.Network.Type, "STATUS", conf, &record{}); err != nil {
			// Plugins of before 1.1 in a 1.1 network know no STATUS: no opinion.
			if e := (*PluginError)(nil); errors.As(err, &e) && e.unknownVerb() {
				continue
			}
			return err
		}
	}
	return nil
}
