package config

import (
	"path/filepath"
	"regexp"
	"time"
)

// Version is the configuration version this crid reads.
const Version = 1

// DefaultPath is where the file is looked for unless --config says otherwise.
const DefaultPath = "/etc/crid/config.toml"

// Config is the whole configuration, with every default filled in by Load.
// What each key means is in Keys.
type Config struct {
	Version            int      `toml:"version"`
	Root               string   `toml:"root"`
	State              string   `toml:"state"`
	Address            string   `toml:"address"`
	DefaultRuntime     string   `toml:"default_runtime"`
	CgroupDriver       string   `toml:"cgroup_driver"`
	CgroupParent       string   `toml:"cgroup_parent"`
	RestrictOOMScore   string   `toml:"restrict_oom_score_adj"`
	EnableSELinux      bool     `toml:"enable_selinux"`
	SeccompProfile     string   `toml:"seccomp_profile"`
	DeviceOwnership    bool     `toml:"device_ownership_from_security_context"`
	AllowOldRuntime    bool     `toml:"allow_vulnerable_runtime"`
	ShimSocketDir      string   `toml:"shim_socket_dir"`
	RuntimeSearchPaths []string `toml:"runtime_search_paths"`
	CDISpecDirs        []string `toml:"cdi_spec_dirs"`

	CNI       CNI                `toml:"cni"`
	Registry  Registry           `toml:"registry"`
	Images    Images             `toml:"images"`
	Streaming Streaming          `toml:"streaming"`
	Metrics   Metrics            `toml:"metrics"`
	Log       Log                `toml:"log"`
	Limits    Limits             `toml:"limits"`
	Timeouts  Timeouts           `toml:"timeouts"`
	Runtimes  map[string]Runtime `toml:"runtimes"`
}

// CNI is pod networking.
type CNI struct {
	ConfDir        string         `toml:"conf_dir"`
	BinDirs        []string       `toml:"bin_dirs"`
	CacheDir       string         `toml:"cache_dir"`
	PluginTimeout  Duration       `toml:"plugin_timeout"`
	DefaultNetwork DefaultNetwork `toml:"default_network"`
}

// DefaultNetwork is the network that crid writes into an empty conf_dir when asked.
type DefaultNetwork struct {
	Write  bool   `toml:"write"`
	Name   string `toml:"name"`
	Bridge string `toml:"bridge"`
	Subnet string `toml:"subnet"`
}

// Registry says how image registries are reached.
type Registry struct {
	CertsDirs []string `toml:"certs_dirs"`
}

// Images is pulling and keeping images.
type Images struct {
	Snapshotter         string   `toml:"snapshotter"`
	MaxConcurrentLayers int      `toml:"max_concurrent_layers"`
	ProgressTimeout     Duration `toml:"progress_timeout"`
	MaxLayerSize        Size     `toml:"max_layer_size"`
	Pinned              []string `toml:"pinned"`
	PreloadDir          string   `toml:"preload_dir"`
}

// Streaming is the exec, attach and port-forward server.
type Streaming struct {
	Address     string   `toml:"address"`
	IdleTimeout Duration `toml:"idle_timeout"`
}

// Metrics is the Prometheus endpoint.
type Metrics struct {
	Address string `toml:"address"`
}

// Log is crid's own log.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Limits bound what one request or container can make crid keep.
type Limits struct {
	MaxLogLineSize    Size `toml:"max_log_line_size"`
	MaxExecSyncOutput Size `toml:"max_exec_sync_output"`
}

// Timeouts bound what crid waits for.
type Timeouts struct {
	ShimStart Duration `toml:"shim_start"`
	Stats     Duration `toml:"stats"`
}

// Runtime is one handler, named by its key in [runtimes].
type Runtime struct {
	Type                 string         `toml:"type"`
	Path                 string         `toml:"path"`
	Options              map[string]any `toml:"options"`
	Sandbox              string         `toml:"sandbox"`
	PodAnnotations       []string       `toml:"pod_annotations"`
	ContainerAnnotations []string       `toml:"container_annotations"`
	CgroupDriver         string         `toml:"cgroup_driver"`
}

// The forms of a pod's sandbox.
const (
	SandboxPinned = "pinned" // namespaces pinned by bind mounts, no process
	SandboxPause  = "pause"  // a pause process holds them
)

// Default is the configuration without any file. Values that follow from
// root and state are filled in by Load (derive).
func Default() *Config {
	return &Config{
		Version:          Version,
		Root:             "/var/lib/crid",
		State:            "/run/crid",
		DefaultRuntime:   "runc",
		CgroupDriver:     "auto",
		CgroupParent:     "/crid",
		RestrictOOMScore: "auto",
		CDISpecDirs:      []string{"/etc/cdi", "/var/run/cdi"},
		CNI: CNI{
			ConfDir:        "/etc/cni/net.d",
			BinDirs:        []string{"/opt/cni/bin"},
			PluginTimeout:  Duration(25 * time.Second),
			DefaultNetwork: DefaultNetwork{Name: "crid", Bridge: "crid0", Subnet: "10.88.0.0/16"},
		},
		Registry: Registry{CertsDirs: []string{"/etc/crid/certs.d", "/etc/containerd/certs.d"}},
		Images: Images{
			Snapshotter:         "overlayfs",
			MaxConcurrentLayers: 6,
			ProgressTimeout:     Duration(5 * time.Minute),
			MaxLayerSize:        64 << 30,
		},
		Streaming: Streaming{Address: "127.0.0.1:0", IdleTimeout: Duration(4 * time.Hour)},
		Metrics:   Metrics{Address: "127.0.0.1:1338"},
		Log:       Log{Level: "info", Format: "text"},
		Limits:    Limits{MaxLogLineSize: 16 << 10, MaxExecSyncOutput: 16 << 20},
		Timeouts: Timeouts{
			ShimStart: Duration(20 * time.Second),
			Stats:     Duration(2 * time.Second),
		},
		Runtimes: map[string]Runtime{"runc": {
			Type:    RuncType,
			Options: map[string]any{"BinaryName": "runc", "Root": "", "SystemdCgroup": false},
			Sandbox: SandboxPinned,
		}},
	}
}

// derive fills in what follows from other keys.
func (c *Config) derive() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Address, filepath.Join(c.State, "crid.sock"))
	set(&c.ShimSocketDir, filepath.Join(c.State, "s"))
	set(&c.CNI.CacheDir, filepath.Join(c.Root, "cni"))
	set(&c.Images.PreloadDir, filepath.Join(c.Root, "preload"))
	for name, r := range c.Runtimes {
		set(&r.Sandbox, SandboxPinned)
		set(&r.Type, typeOf(r.Path))
		c.Runtimes[name] = r
	}
}

// shimProgram is how shims are called: containerd-shim-NAME-vN is of type io.containerd.NAME.vN.
var shimProgram = regexp.MustCompile(`^containerd-shim-([a-z0-9_-]+)-(v[0-9]+)$`)

// typeOf is the type of a handler that names none: runc's without a path, else what the shim's file name says; empty if it says nothing. The
// options' message depends on it, and a shim refuses that of another.
func typeOf(path string) string {
	if path == "" {
		return RuncType
	}
	m := shimProgram.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return ""
	}
	return "io.containerd." + m[1] + "." + m[2]
}

// AdminSocket is where the daemon answers the command line.
func (c *Config) AdminSocket() string { return filepath.Join(c.State, "admin.sock") }

// DriverFor answers the cgroup driver of a handler: its own cgroup_driver,
// else the general one; with "auto" a handler whose options say SystemdCgroup
// gets systemd, and any other what detect answers for the machine.
func (c *Config) DriverFor(handler string, detect func() string) string {
	r := c.Runtimes[handler]
	for _, d := range []string{r.CgroupDriver, c.CgroupDriver} {
		if d != "" && d != "auto" {
			return d
		}
	}
	if on, _ := r.Options["SystemdCgroup"].(bool); on {
		return "systemd"
	}
	return detect()
}
