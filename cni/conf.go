package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	maxConf  = 1 << 20 // one configuration file, bytes
	maxFiles = 1000    // looked at in a directory
	// A file that was good and now is not is most likely being written: for this
	// long what it said before is still meant.
	tornGrace = 3 * time.Second
)

// tornFiles remembers what a file said while it was good. Guarded by
// Networks.loading.
type tornFiles struct {
	good  map[string]*libcni.NetworkConfigList
	since map[string]time.Time
}

// parseList reads a network configuration list and checks all of it that can
// be checked without a plugin.
func parseList(data []byte) (list *libcni.NetworkConfigList, err error) {
	list, err = libcni.NetworkConfFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return list, checkList(list)
}

func checkList(list *libcni.NetworkConfigList) error {
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return fmt.Errorf("network name %q: %s: %w", list.Name, err.Msg, errdefs.ErrInvalidArgument)
	}
	if len(list.Plugins) == 0 {
		return fmt.Errorf("network %q has no plugins: %w", list.Name, errdefs.ErrInvalidArgument)
	}
	if v := list.CNIVersion; v != "" && !slices.Contains(version.All.SupportedVersions(), v) {
		return fmt.Errorf("network %q has cniVersion %q, which is none of %s: %w", list.Name, v,
			strings.Join(version.All.SupportedVersions(), ", "), errdefs.ErrInvalidArgument)
	}
	for _, p := range list.Plugins {
		if err := checkType(p.Network.Type); err != nil {
			return fmt.Errorf("network %q: %w", list.Name, err)
		}
		// The IPAM plugin is run by the main plugin, which may not look.
		if ipam := p.Network.IPAM.Type; ipam != "" {
			if err := checkType(ipam); err != nil {
				return fmt.Errorf("network %q: ipam: %w", list.Name, err)
			}
		}
	}
	return nil
}

// parseFile reads one file of the configuration directory: a list, or a single
// plugin's configuration, which is a list of one.
func parseFile(path string) (*libcni.NetworkConfigList, error) {
	data, err := readBounded(path, maxConf)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(path) != ".conflist" {
		single, err := libcni.NetworkPluginConfFromBytes(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		list, err := libcni.ConfListFromConf(single) //nolint:staticcheck // single files are still in use
		if err != nil {
			return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return list, checkList(list)
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, fmt.Errorf("network name %q: %s: %w", list.Name, err.Msg, errdefs.ErrInvalidArgument)
	}
	if !list.LoadOnlyInlinedPlugins {
		if err := addPluginFiles(list, filepath.Join(filepath.Dir(path), list.Name)); err != nil {
			return nil, err
		}
	}
	return list, checkList(list)
}

// addPluginFiles appends the plugins of CONFDIR/NETWORK/*.conf (CNI 1.1), and
// makes the list's bytes say so: they are what DEL will read.
func addPluginFiles(list *libcni.NetworkConfigList, dir string) error {
	files, err := confFiles(dir, ".conf")
	if err != nil || len(files) == 0 {
		return err
	}
	var raw map[string]any
	if err := json.Unmarshal(list.Bytes, &raw); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	plugins, _ := raw["plugins"].([]any)
	for _, file := range files {
		data, err := readBounded(file, maxConf)
		if err != nil {
			return err
		}
		p, err := libcni.NetworkPluginConfFromBytes(data)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", file, err, errdefs.ErrInvalidArgument)
		}
		list.Plugins = append(list.Plugins, p)
		plugins = append(plugins, json.RawMessage(data))
	}
	raw["plugins"] = plugins
	raw["loadOnlyInlinedPlugins"] = true
	if list.Bytes, err = json.Marshal(raw); err != nil {
		return fmt.Errorf("encode network %q: %w", list.Name, err)
	}
	return nil
}

func confFiles(dir string, exts ...string) ([]string, error) {
	d, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFiles)
	if err != nil && len(names) == 0 {
		names = nil // io.EOF: an empty directory
	}
	var files []string
	for _, name := range names {
		if slices.Contains(exts, filepath.Ext(name)) && name[0] != '.' {
			files = append(files, filepath.Join(dir, name))
		}
	}
	slices.Sort(files)
	return files, nil
}

// Reload reads the configuration directory now. It is what [Networks.Watch]
// does by itself; the answer is true if a file may be in the middle of being
// written, so that one should look again in a moment.
func (n *Networks) Reload() (unsettled bool) {
	n.loading.Lock()
	defer n.loading.Unlock()
	next, unsettled := n.read(time.Now())
	old := n.current.Load()
	if old != nil && old.list != nil && next.list != nil && old.file == next.file && string(old.list.Bytes) == string(next.list.Bytes) {
		return unsettled // the same: keep what STATUS said of it
	}
	n.current.Store(next)
	switch {
	case next.list != nil:
		n.log.Info("network loaded", "network", next.list.Name, "file", next.file)
		if speaks(next.list, "1.1.0") {
			n.askStatus(next.list)
		}
	case old == nil || old.list != nil || old.reason != next.reason:
		n.log.Warn("no network", "reason", next.reason)
	}
	return unsettled
}

// read looks for the first valid network. A file that was good until a moment
// ago counts as it was; one that stays broken is passed over.
func (n *Networks) read(now time.Time) (next *loaded, unsettled bool) {
	files, err := confFiles(n.cfg.ConfDir, ".conf", ".conflist", ".json")
	if err != nil {
		return &loaded{reason: fmt.Sprintf("cannot read the CNI configuration directory: %v", err)}, true
	}
	good, since := map[string]*libcni.NetworkConfigList{}, map[string]time.Time{}
	defer func() { n.torn = tornFiles{good: good, since: since} }()
	var reasons []string
	next = &loaded{}
	for _, file := range files {
		list, err := parseFile(file)
		if err != nil {
			first, known := n.torn.since[file]
			if !known {
				first = now
			}
			since[file] = first
			reasons = append(reasons, fmt.Sprintf("%s: %v", filepath.Base(file), err))
			if before := n.torn.good[file]; before != nil && now.Sub(first) < tornGrace {
				list, unsettled = before, true
			} else {
				unsettled = unsettled || now.Sub(first) < tornGrace
				continue
			}
		}
		good[file] = list
		if next.list == nil {
			next.list, next.file = list, file
		}
	}
	if next.list == nil {
		next.reason = fmt.Sprintf("no CNI network configuration in %s: put a .conflist there", n.cfg.ConfDir)
		if len(reasons) > 0 {
			next.reason = fmt.Sprintf("no valid CNI network configuration in %s: %s", n.cfg.ConfDir, clip(strings.Join(reasons, "; ")))
		}
	}
	return next, unsettled
}
