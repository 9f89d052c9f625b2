package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// kept are the attachments of which a copy lies in this daemon's cache
// directory, which may be shared with another runtime.
func (n *Networks) kept() []*record { return keptIn(n.cfg.CacheDir) }

// keptIn passes over what does not parse: it is not ours to judge.
func keptIn(cacheDir string) []*record {
	dir := filepath.Join(cacheDir, "results")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []*record
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !e.Type().IsRegular() {
			continue
		}
		data, err := readBounded(filepath.Join(dir, e.Name()), maxRecord)
		if err != nil {
			continue
		}
		if r, _, err := parseRecord(data); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// owned is true for attachments of this daemon's namespaces.
func (n *Networks) owned(r *record) bool {
	return n.cfg.Owned != "" && strings.HasPrefix(r.NetNS, strings.TrimSuffix(n.cfg.Owned, "/")+"/")
}

// GC releases what belongs to no pod. Attachments of this daemon's namespaces
// whose pod is not in valid get a DEL from their kept record. Then, where the
// network's version has it (CNI 1.1) and does not disable it, the plugins are
// told which attachments are valid, and release the rest by themselves; those
// that another runtime keeps, in the same cache directory or in the usual one,
// count as valid, and so does what this process has attached itself. Pods that
// come while the plugins run wait for them, at most ten seconds. (The standard
// plugins up to 1.9 accept GC and do nothing, so the copies are what counts.)
// Idempotent.
func (n *Networks) GC(ctx context.Context, valid []Attachment) error {
	ids := map[string]bool{}
	for _, a := range valid {
		ids[a.ID] = true
	}
	var errs []error
	var foreign []*record
	for _, r := range n.kept() {
		switch {
		case ids[r.ContainerID], n.gate.attached(r.ContainerID):
		case !n.owned(r):
			foreign = append(foreign, r)
		default:
			data, err := r.marshal()
			if err == nil {
				err = n.delRecord(ctx, data)
			}
			if err != nil {
				// Still there: the plugins must not be told otherwise.
				foreign = append(foreign, r)
			}
			errs = append(errs, err)
		}
	}
	if filepath.Clean(n.cfg.CacheDir) != defaultCacheDir {
		foreign = append(foreign, keptIn(defaultCacheDir)...)
	}
	list, err := n.network()
	if err != nil || list.DisableGC || !speaks(list, "1.1.0") {
		return errors.Join(errs...)
	}
	live, open, err := n.gate.close(ctx)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("collect garbage of network %q: %w", list.Name, err))...)
	}
	defer open()
	for _, id := range live {
		ids[id] = true
	}
	attachments := []types.GCAttachment{}
	for id := range ids {
		attachments = append(attachments, types.GCAttachment{ContainerID: id, IfName: n.cfg.IfName})
	}
	for _, r := range foreign {
		if r.NetworkName == list.Name {
			attachments = append(attachments, types.GCAttachment{ContainerID: r.ContainerID, IfName: r.IfName})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, gcTimeout)
	defer cancel()
	for _, p := range list.Plugins {
		errs = append(errs, n.gcPlugin(ctx, list, p, attachments))
	}
	return errors.Join(errs...)
}

func (n *Networks) gcPlugin(ctx context.Context, list *libcni.NetworkConfigList, p *libcni.PluginConfig, valid []types.GCAttachment) error {
	conf, err := libcni.InjectConf(p, map[string]any{
		"name": list.Name, "cniVersion": list.CNIVersion,
		// The second name is the one that the first plugins with GC read.
		"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid,
	})
	if err != nil {
		return fmt.Errorf("collect garbage of network %q: %w", list.Name, err)
	}
	err = n.run(ctx, p.Network.Type, "GC", conf.Bytes, &record{})
	if e := (*PluginError)(nil); errors.As(err, &e) && e.unknownVerb() {
		return nil
	}
	if err != nil {
		return fmt.Errorf("collect garbage of network %q: %w", list.Name, err)
	}
	return nil
}
