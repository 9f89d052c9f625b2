package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"
)

// record is an attachment as it is kept: everything that a DEL needs. The
// fields are those of libcni's cache files, so that other tools can read them.
// Without a result it is an intent: an ADD that may have happened or not.
type record struct {
	Kind           string          `json:"kind"`
	ContainerID    string          `json:"containerId"`
	Config         []byte          `json:"config"`
	IfName         string          `json:"ifName"`
	NetworkName    string          `json:"networkName"`
	NetNS          string          `json:"netns,omitempty"`
	CNIArgs        [][2]string     `json:"cniArgs,omitempty"`
	CapabilityArgs map[string]any  `json:"capabilityArgs,omitempty"`
	Result         json.RawMessage `json:"result,omitempty"`
}

const maxRecord = 4 << 20 // configuration, arguments and result, bytes

func newRecord(list *libcni.NetworkConfigList, ifName string, a Attachment) *record {
	return &record{
		Kind: libcni.CNICacheV1, ContainerID: a.ID, Config: list.Bytes, IfName: ifName, NetworkName: list.Name,
		NetNS: a.NetNS, CNIArgs: a.cniArgs(), CapabilityArgs: a.capabilities(),
	}
}

func (r *record) marshal() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode network record: %w", err)
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("network record of %d bytes is larger than %d: %w", len(data), maxRecord, errdefs.ErrInvalidArgument)
	}
	return data, nil
}

// parseRecord reads what marshal wrote. Its names become file names and
// arguments of plugins, so they are checked again.
func parseRecord(data []byte) (*record, *libcni.NetworkConfigList, error) {
	if len(data) > maxRecord {
		return nil, nil, fmt.Errorf("read network record: %d bytes: %w", len(data), errdefs.ErrInvalidArgument)
	}
	r := &record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, nil, fmt.Errorf("read network record: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if r.Kind != libcni.CNICacheV1 {
		return nil, nil, fmt.Errorf("read network record: kind %q: %w", r.Kind, errdefs.ErrInvalidArgument)
	}
	if err := utils.ValidateContainerID(r.ContainerID); err != nil {
		return nil, nil, fmt.Errorf("read network record: id: %s: %w", err.Msg, errdefs.ErrInvalidArgument)
	}
	if err := utils.ValidateInterfaceName(r.IfName); err != nil {
		return nil, nil, fmt.Errorf("read network record: interface: %s: %w", err.Msg, errdefs.ErrInvalidArgument)
	}
	list, err := parseList(r.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("read network record: %w", err)
	}
	if list.Name != r.NetworkName {
		return nil, nil, fmt.Errorf("read network record: of network %q with the configuration of %q: %w", r.NetworkName, list.Name, errdefs.ErrInvalidArgument)
	}
	return r, list, nil
}

// result is the last plugin's answer, nil for an intent.
func (r *record) result() (types.Result, error) {
	if len(r.Result) == 0 || string(r.Result) == "null" {
		return nil, nil
	}
	res, err := create.CreateFromBytes(r.Result)
	if err != nil {
		return nil, fmt.Errorf("read network result: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return res, nil
}

func (n *Networks) recordPath(r *record) string {
	// All three are names without separators, checked before.
	return filepath.Join(n.cfg.CacheDir, "results", r.NetworkName+"-"+r.ContainerID+"-"+r.IfName)
}

// keep writes the record's copy, whole or not at all. Nothing depends on it
// but the search for attachments whose pod is unknown, so an error is only told.
func (n *Networks) keep(r *record, data []byte) {
	path := n.recordPath(r)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		// A dot keeps half-written files from libcni's readers.
		tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
		if err = os.WriteFile(tmp, data, 0o600); err == nil {
			err = os.Rename(tmp, path)
		}
		if err != nil {
			_ = os.Remove(tmp)
		}
	}
	if err != nil {
		n.log.Warn("keep a copy of the network record", "pod", r.ContainerID, "error", err)
	}
}

func (n *Networks) forget(r *record) {
	if err := os.Remove(n.recordPath(r)); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.log.Warn("remove the copy of the network record", "pod", r.ContainerID, "error", err)
	}
}

// readBounded reads a regular file of at most limit bytes, symlinks allowed
// (configuration is often mounted through them), without ever blocking on it.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrInvalidArgument)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes: %w", path, limit, errdefs.ErrInvalidArgument)
	}
	return data, nil
}
