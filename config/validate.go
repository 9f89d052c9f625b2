package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// RuncType is the shim that drives runc and what behaves like it (crun).
const RuncType = "io.containerd.runc.v2"

// longestSocket is the most bytes a unix socket's path can have (sun_path,
// less the final NUL); shimName what a shim's socket adds to its directory:
// a slash and a SHA-256 in hex.
const (
	longestSocket = 107
	shimName      = 1 + 64
)

// runcOptions are what the runc shim's options message has.
var runcOptions = []string{
	"BinaryName", "Root", "SystemdCgroup", "NoPivotRoot", "NoNewKeyring", "ShimCgroup",
	"IoUid", "IoGid", "CriuImagePath", "CriuWorkPath",
}

// shared are directories that many programs live in: crid reset would empty them.
var shared = []string{
	"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc", "/root", "/run",
	"/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/local", "/var", "/var/lib", "/var/run", "/var/tmp",
}

var (
	handlerName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	shimType    = regexp.MustCompile(`^[a-z0-9]+(\.[a-z0-9_-]+)*\.[a-z0-9_-]+\.v[0-9]+$`)
)

// faults collects what is wrong; each names its key and the cure.
type faults struct{ all []error }

func (f *faults) add(key, format string, args ...any) {
	f.all = append(f.all, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (f *faults) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(key, "%q is not possible: write one of %s", value, strings.Join(allowed, ", "))
	}
}

func (f *faults) absolute(key, value string) bool {
	switch {
	case value == "":
		f.add(key, "is empty: write an absolute path, or leave the key out for its default")
	case !filepath.IsAbs(value), value != filepath.Clean(value), strings.ContainsAny(value, "\x00\n"):
		f.add(key, "%q is no clean absolute path: write it from / on, without \".\", \"..\", double or final slashes", value)
	default:
		return true
	}
	return false
}

func (f *faults) positive(key string, d Duration) {
	if d <= 0 {
		f.add(key, "%s would end everything at once: write a duration above 0", d)
	}
}

// Validate checks every value. All faults are reported together.
func (c *Config) Validate() error {
	f := &faults{}
	c.places(f)
	f.oneOf("cgroup_driver", c.CgroupDriver, "auto", "cgroupfs", "systemd")
	f.oneOf("restrict_oom_score_adj", c.RestrictOOMScore, "auto", "true", "false")
	f.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	f.oneOf("log.format", c.Log.Format, "text", "json")
	if !strings.HasPrefix(c.CgroupParent, "/") && !strings.HasSuffix(c.CgroupParent, ".slice") ||
		c.CgroupParent == "/" || slices.Contains(strings.Split(c.CgroupParent, "/"), "..") {
		f.add("cgroup_parent", "%q is no place for pods: write a path like \"/crid\", or a slice like \"crid.slice\"", c.CgroupParent)
	}
	if c.SeccompProfile != "" {
		f.absolute("seccomp_profile", c.SeccompProfile)
	}
	c.network(f)
	if c.Images.MaxConcurrentLayers < 1 || c.Images.MaxConcurrentLayers > 64 {
		f.add("images.max_concurrent_layers", "%d is not between 1 and 64", c.Images.MaxConcurrentLayers)
	}
	f.oneOf("images.snapshotter", c.Images.Snapshotter, "overlayfs", "native")
	if c.Images.MaxLayerSize < 1<<20 {
		f.add("images.max_layer_size", "%s would refuse every image: write at least \"1MiB\"", c.Images.MaxLayerSize)
	}
	if c.Limits.MaxLogLineSize < 256 || c.Limits.MaxLogLineSize > 1<<20 {
		f.add("limits.max_log_line_size", "%s is not between 256 and 1MiB: the kubelet expects 16KiB", c.Limits.MaxLogLineSize)
	}
	if c.Limits.MaxExecSyncOutput < 1<<10 || c.Limits.MaxExecSyncOutput > 16<<20 {
		f.add("limits.max_exec_sync_output", "%s is not between 1KiB and 16MiB: a kubelet takes no larger answer", c.Limits.MaxExecSyncOutput)
	}
	for key, d := range map[string]Duration{
		"images.progress_timeout": c.Images.ProgressTimeout, "streaming.idle_timeout": c.Streaming.IdleTimeout,
		"cni.plugin_timeout": c.CNI.PluginTimeout, "timeouts.shim_start": c.Timeouts.ShimStart,
		"timeouts.stats": c.Timeouts.Stats,
	} {
		f.positive(key, d)
	}
	c.handlers(f)
	slices.SortFunc(f.all, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if len(f.all) > 0 {
		return fmt.Errorf("configuration is not valid: %w", errors.Join(f.all...))
	}
	return nil
}

// places checks directories and sockets.
func (c *Config) places(f *faults) {
	okRoot, okState := f.absolute("root", c.Root), f.absolute("state", c.State)
	for key, dir := range map[string]string{"root": c.Root, "state": c.State} {
		if slices.Contains(shared, dir) {
			f.add(key, "%q belongs to the whole system: write a directory of crid's own, which \"crid reset\" may empty", dir)
		}
	}
	if okRoot && okState && (within(c.Root, c.State) || within(c.State, c.Root)) {
		f.add("state", "%q and root %q lie in each other: write two separate directories", c.State, c.Root)
	}
	if f.absolute("address", c.Address) && len(c.Address) > longestSocket {
		f.add("address", "is %d bytes long, a socket's path can have %d: write a shorter one (or a shorter state)", len(c.Address), longestSocket)
	}
	if n := len(c.AdminSocket()); n > longestSocket {
		f.add("state", "is too long for the sockets in it: write one of at most %d bytes", longestSocket-len("/admin.sock"))
	}
	if f.absolute("shim_socket_dir", c.ShimSocketDir) && len(c.ShimSocketDir)+shimName > longestSocket {
		f.add("shim_socket_dir", "%q is %d bytes long, shim sockets leave room for %d: set it to a shorter directory, for example \"/run/crid-s\"",
			c.ShimSocketDir, len(c.ShimSocketDir), longestSocket-shimName)
	}
	f.absolute("cni.conf_dir", c.CNI.ConfDir)
	f.absolute("cni.cache_dir", c.CNI.CacheDir)
	f.absolute("images.preload_dir", c.Images.PreloadDir)
	for key, dirs := range map[string][]string{
		"cni.bin_dirs": c.CNI.BinDirs, "registry.certs_dirs": c.Registry.CertsDirs,
		"cdi_spec_dirs": c.CDISpecDirs, "runtime_search_paths": c.RuntimeSearchPaths,
	} {
		for _, d := range dirs {
			f.absolute(key, d)
		}
	}
	if len(c.CNI.BinDirs) == 0 {
		f.add("cni.bin_dirs", "is empty: write the directory with the CNI plugins, usually \"/opt/cni/bin\"")
	}
}

// within tells whether a lies in b or is b.
func within(a, b string) bool { return a == b || strings.HasPrefix(a, b+"/") }

// network checks addresses.
func (c *Config) network(f *faults) {
	address := func(key, value string) {
		if _, _, err := net.SplitHostPort(value); err != nil {
			f.add(key, "%q is no HOST:PORT: write for example \"127.0.0.1:0\"", value)
		}
	}
	address("streaming.address", c.Streaming.Address)
	if c.Metrics.Address != "" {
		address("metrics.address", c.Metrics.Address)
	}
	d := c.CNI.DefaultNetwork
	if !d.Write {
		return
	}
	if p, err := netip.ParsePrefix(d.Subnet); err != nil || p != p.Masked() {
		f.add("cni.default_network.subnet", "%q is no network: write for example \"10.88.0.0/16\"", d.Subnet)
	}
	if d.Bridge == "" || len(d.Bridge) > 15 || strings.ContainsAny(d.Bridge, "/ \t:") {
		f.add("cni.default_network.bridge", "%q is no interface name: write one to fifteen letters, for example \"crid0\"", d.Bridge)
	}
	if d.Name == "" || strings.ContainsAny(d.Name, "/ \t\n") {
		f.add("cni.default_network.name", "%q is no network name: write for example \"crid\"", d.Name)
	}
}

// handlers checks the runtimes.
func (c *Config) handlers(f *faults) {
	if _, ok := c.Runtimes[c.DefaultRuntime]; !ok {
		f.add("default_runtime", "%q is no handler: write one of %s, or add [runtimes.%s]",
			c.DefaultRuntime, strings.Join(slices.Sorted(maps.Keys(c.Runtimes)), ", "), c.DefaultRuntime)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		r, key := c.Runtimes[name], "runtimes."+name
		if !handlerName.MatchString(name) || len(name) > 63 {
			f.add(key, "%q is no handler name: write lower-case letters, digits and dashes, as a RuntimeClass wants", name)
		}
		if r.Path != "" {
			f.absolute(key+".path", r.Path)
		} else if !shimType.MatchString(r.Type) {
			f.add(key+".type", "%q is no shim type: write for example %q, or give the shim's path", r.Type, RuncType)
		}
		f.oneOf(key+".sandbox", r.Sandbox, SandboxPinned, SandboxPause)
		if r.CgroupDriver != "" {
			f.oneOf(key+".cgroup_driver", r.CgroupDriver, "auto", "cgroupfs", "systemd")
		}
		for k, list := range map[string][]string{".pod_annotations": r.PodAnnotations, ".container_annotations": r.ContainerAnnotations} {
			for _, a := range list {
				if a == "" || strings.Contains(strings.TrimSuffix(a, "*"), "*") {
					f.add(key+k, "%q is no annotation: write a key, or a prefix and one final \"*\"", a)
				}
			}
		}
		if r.Type == RuncType {
			runcChecks(f, key+".options", r.Options)
		}
	}
}

// runcChecks finds misspelled options, which the shim would silently ignore.
func runcChecks(f *faults, key string, options map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(runcOptions, name) {
			near := nearest(name, runcOptions)
			if near == "" {
				near = strings.Join(runcOptions, ", ")
			}
			f.add(key+"."+name, "is no option of the runc shim: did you mean %s?", near)
			continue
		}
		var ok bool
		switch name {
		case "SystemdCgroup", "NoPivotRoot", "NoNewKeyring":
			_, ok = options[name].(bool)
		case "IoUid", "IoGid":
			_, ok = options[name].(int64)
		default:
			_, ok = options[name].(string)
		}
		if !ok {
			f.add(key+"."+name, "%v has the wrong type: BinaryName, Root and the other paths are strings, SystemdCgroup and the No… ones are true or false", options[name])
		}
	}
}
