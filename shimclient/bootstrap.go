package shimclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// dialect is the form of the input that a shim's start command expects. Each
// side refuses the other's: a shim of containerd 2.4 wants BootstrapParams and
// nothing else, one before 2.3 wants the bare options and takes parameters for
// options of an unknown type.
type dialect int

const (
	dialectUnknown dialect = iota
	dialectOptions         // before 2.3: the marshalled options, or nothing
	dialectParams          // from 2.3 on: BootstrapParams
)

func (d dialect) other() dialect {
	if d == dialectParams {
		return dialectOptions
	}
	return dialectParams
}

// dialectOf judges by what "-v" prints. Only the form of containerd's own shim
// library counts, which names the version of that library (a Kata shim that
// prints a version of Kata's in its own form says nothing to us). False is a
// guess: the older form, for third-party shims follow slowly.
func dialectOf(versionText string) (d dialect, sure bool) {
	for line := range strings.Lines(versionText) {
		v, ok := strings.CutPrefix(line, "  Version:")
		if !ok {
			continue
		}
		var major, minor int
		if n, _ := fmt.Sscanf(strings.TrimPrefix(strings.TrimSpace(v), "v"), "%d.%d", &major, &minor); n != 2 {
			continue
		}
		if major > 2 || major == 2 && minor >= 3 {
			return dialectParams, true
		}
		return dialectOptions, true
	}
	return dialectOptions, false
}

// saysWrongDialect recognises the refusals measured with either kind of shim.
func saysWrongDialect(stderr string) bool {
	for _, s := range []string{"bootstrap parameters", "deprecated API", "type with url", "unmarshal"} {
		if strings.Contains(stderr, s) {
			return true
		}
	}
	return false
}

// fileKey tells a binary from the one that an upgrade put in its place.
type fileKey struct {
	dev, ino    uint64
	size, mtime int64
}

func keyOf(path string) (fileKey, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return fileKey{}, fmt.Errorf("find shim binary: %w", err)
	}
	key := fileKey{size: fi.Size(), mtime: fi.ModTime().UnixNano()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		key.dev, key.ino = st.Dev, st.Ino
	}
	return key, nil
}

// dialects remembers what was found out about each binary.
type dialects struct {
	mu    sync.Mutex
	known map[fileKey]dialect
}

func (d *dialects) get(key fileKey) dialect {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known[key]
}

func (d *dialects) put(key fileKey, v dialect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) > 64 { // a binary replaced every minute must not grow us
		d.known = make(map[fileKey]dialect)
	}
	d.known[key] = v
}

// startInput is what the start command reads.
func (h *Host) startInput(d dialect, id string, options *anypb.Any) ([]byte, error) {
	if d == dialectOptions {
		if options == nil {
			return nil, nil
		}
		return proto.Marshal(options)
	}
	params := &bootstrap.BootstrapParams{
		InstanceID:             id,
		Namespace:              h.config.Namespace,
		ContainerdTtrpcAddress: h.eventsPath(),
		ContainerdGrpcAddress:  h.config.Address,
		ContainerdBinary:       h.self,
		SocketDir:              &h.config.SocketDir,
	}
	if h.config.Debug {
		params.LogLevel = bootstrap.LogLevel_LOG_LEVEL_DEBUG
	}
	if options != nil {
		if err := params.AddExtension(options); err != nil {
			return nil, err
		}
	}
	return proto.Marshal(params)
}

// answer is what a start command says: where the shim listens, and for which
// version of the task API.
type answer struct {
	path    string
	version int
}

// parseAnswer reads the three forms there are: BootstrapResult, its JSON
// predecessor (2.0 to 2.2), and a plain address (1.x, task API 2).
func parseAnswer(out []byte) (answer, error) {
	trimmed := bytes.TrimSpace(out)
	if len(trimmed) == 0 {
		return answer{}, fmt.Errorf("shim printed no address: %w", errdefs.ErrUnknown)
	}
	var result bootstrap.BootstrapResult
	if err := proto.Unmarshal(out, &result); err == nil && result.Address != "" {
		return checkAnswer(int(result.Version), result.Address, result.Protocol)
	}
	var older struct {
		Version  int    `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}
	if err := json.Unmarshal(trimmed, &older); err == nil && older.Address != "" {
		return checkAnswer(older.Version, older.Address, older.Protocol)
	}
	return checkAnswer(2, string(trimmed), "ttrpc")
}

func checkAnswer(version int, address, protocol string) (answer, error) {
	if version < 2 || version > 3 {
		return answer{}, fmt.Errorf("shim speaks version %d of the task API, and 2 and 3 are known here; install a shim of containerd 1.6 to 2.4: %w", version, errdefs.ErrNotImplemented)
	}
	if protocol != "ttrpc" && protocol != "" {
		return answer{}, fmt.Errorf("shim speaks %q, and only ttrpc is known here: %w", clip(protocol), errdefs.ErrNotImplemented)
	}
	path, err := parseAddress(address)
	return answer{path, version}, err
}
