package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Key documents one configuration key.
type Key struct {
	// Name is dotted; "runtimes.*." stands for every handler.
	Name string
	// Default is the value without a file, as TOML.
	Default string
	// Meaning is one or two sentences.
	Meaning string
	// Live is true if SIGHUP takes a changed value over; the others need a
	// restart of crid (which no pod notices).
	Live bool
}

// meanings are in the order of the file; the tests hold them against the
// structs, so that no key is undocumented.
var meanings = []Key{
	{Name: "version", Meaning: "Version of this file's format; required."},
	{Name: "root", Meaning: "What outlives a reboot: records, images, writable layers. Mode 0700."},
	{Name: "state", Meaning: "What does not: bundles, pinned namespaces, sockets. On a tmpfs. Mode 0700."},
	{Name: "address", Meaning: "The CRI socket, for the kubelet's --container-runtime-endpoint and crictl."},
	{Name: "default_runtime", Meaning: "The handler of pods that name none."},
	{Name: "cgroup_driver", Meaning: "Who makes cgroups: cgroupfs, systemd, or auto (systemd where it is PID 1). The kubelet is told."},
	{Name: "cgroup_parent", Meaning: "Where containers go whose pod names no cgroup parent."},
	{Name: "restrict_oom_score_adj", Meaning: "Raise an oom_score_adj to what the kernel lets crid set: true, false, or auto (where root may not lower it)."},
	{Name: "enable_selinux", Meaning: "Label containers; only with SELinux in the kernel."},
	{Name: "seccomp_profile", Meaning: "A profile (JSON, as in a container's config.json) for RuntimeDefault, read for each container; empty is the built-in one."},
	{Name: "device_ownership_from_security_context", Meaning: "Give the devices that a container asks for to its runAsUser and runAsGroup."},
	{Name: "allow_vulnerable_runtime", Meaning: "Run new pods on a runc with known escapes (below 1.2.8, 1.3.3, 1.4.0-rc.3), too; else they are refused."},
	{Name: "shim_socket_dir", Meaning: "Directory of the shims' sockets, at most 42 bytes long. Shims already running keep theirs."},
	{Name: "runtime_search_paths", Meaning: "Directories searched for shims and runtimes, before crid's own and $PATH."},
	{Name: "cdi_spec_dirs", Meaning: "Directories of Container Device Interface specs, the later ones winning."},

	{Name: "cni.conf_dir", Meaning: "Directory of the network configuration; the first file in lexical order counts. Watched."},
	{Name: "cni.bin_dirs", Meaning: "Directories of the CNI plugins."},
	{Name: "cni.cache_dir", Meaning: "Where CNI results are kept, so that a network is left the way it was joined."},
	{Name: "cni.plugin_timeout", Meaning: "The longest one ADD or DEL may take."},
	{Name: "cni.default_network.write", Meaning: "Write a bridge network into conf_dir if that is empty."},
	{Name: "cni.default_network.name", Meaning: "Its name."},
	{Name: "cni.default_network.bridge", Meaning: "Its bridge interface."},
	{Name: "cni.default_network.subnet", Meaning: "Its pods' addresses."},

	{Name: "registry.certs_dirs", Meaning: "Directories with HOST/hosts.toml: mirrors, CAs, headers. The first one that has the host counts."},

	{Name: "images.snapshotter", Meaning: "How layers become a root: overlayfs (copies where the file system cannot), or native (always copies)."},
	{Name: "images.max_concurrent_layers", Meaning: "Layers of one pull fetched at a time, 1 to 64."},
	{Name: "images.progress_timeout", Meaning: "A pull that moves no byte for so long is ended."},
	{Name: "images.max_layer_size", Meaning: "The most one layer may unpack to."},
	{Name: "images.pinned", Meaning: "References that garbage collection leaves alone."},
	{Name: "images.preload_dir", Meaning: "Archives here are imported by \"crid images preload\"."},

	{Name: "streaming.address", Meaning: "Where exec, attach and port-forward listen; port 0 takes any. The kubelet must reach it."},
	{Name: "streaming.idle_timeout", Meaning: "A silent stream is ended after this."},

	{Name: "metrics.address", Meaning: "Prometheus: /metrics and /v1/metrics. Empty turns it off."},

	{Name: "log.level", Meaning: "debug, info, warn or error.", Live: true},
	{Name: "log.format", Meaning: "text or json."},

	{Name: "limits.max_log_line_size", Meaning: "Longer lines of a container's log are split into parts."},
	{Name: "limits.max_exec_sync_output", Meaning: "What ExecSync keeps of each output stream, 1KiB to 16MiB; both together fit into one answer of 16MiB."},

	{Name: "timeouts.shim_start", Meaning: "The longest a shim may take to start."},
	{Name: "timeouts.stats", Meaning: "The longest one container's statistics may take."},

	{Name: "runtimes.*.type", Meaning: "The shim, as io.containerd.NAME.vN: the program containerd-shim-NAME-vN is searched. With a path and no type, as the path's file name says."},
	{Name: "runtimes.*.path", Meaning: "The shim's path, instead of the search."},
	{Name: "runtimes.*.options", Meaning: "Options of the shim; for runc: BinaryName, Root, SystemdCgroup, NoPivotRoot, NoNewKeyring, ShimCgroup."},
	{Name: "runtimes.*.sandbox", Meaning: "pinned (no pause process) or pause."},
	{Name: "runtimes.*.pod_annotations", Meaning: "Annotations of pods handed to the runtime: keys, or prefixes with a final *."},
	{Name: "runtimes.*.container_annotations", Meaning: "The same for containers."},
	{Name: "runtimes.*.cgroup_driver", Meaning: "Another cgroup driver for this handler; empty is the general one."},
}

// Keys lists every key with its default and meaning, in the file's order.
func Keys() []Key {
	d := Default()
	d.derive()
	values := map[string]string{}
	for _, e := range flatten(d) {
		name := e.name
		if parts := strings.SplitN(name, ".", 3); parts[0] == "runtimes" && len(parts) == 3 {
			name = "runtimes.*." + parts[2]
		}
		values[name] = e.value
	}
	out := slices.Clone(meanings)
	for i := range out {
		out[i].Default = values[out[i].Name]
	}
	return out
}

// Table is the README's table of keys, in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning |\n|---|---|---|\n")
	for _, k := range Keys() {
		live := ""
		if k.Live {
			live = " (SIGHUP)"
		}
		cell := strings.NewReplacer("|", "\\|", "*", "\\*")
		fmt.Fprintf(&b, "| `%s` | `%s` | %s%s |\n", k.Name, strings.ReplaceAll(k.Default, "|", "\\|"), cell.Replace(k.Meaning), live)
	}
	return b.String()
}

// entry is one key of a configuration with its value as TOML.
type entry struct{ name, value string }

// flatten lists every key of a configuration with its value.
func flatten(c *Config) []entry {
	var out []entry
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			name := prefix + v.Type().Field(i).Tag.Get("toml")
			f := v.Field(i)
			switch {
			case f.Kind() == reflect.Struct:
				walk(name+".", f)
			case name == "runtimes":
				for _, h := range slices.Sorted(maps.Keys(c.Runtimes)) {
					walk(name+"."+h+".", reflect.ValueOf(c.Runtimes[h]))
				}
			default:
				out = append(out, entry{name, literal(f.Interface())})
			}
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return out
}

// literal writes a value as TOML.
func literal(v any) string {
	switch x := v.(type) {
	case string:
		return quote(x)
	case bool:
		return strconv.FormatBool(x)
	case int:
		return strconv.Itoa(x)
	case int64:
		return strconv.FormatInt(x, 10)
	case Duration:
		return quote(x.String())
	case Size:
		return quote(x.String())
	case []string:
		parts := make([]string, len(x))
		for i, s := range x {
			parts[i] = quote(s)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case []any:
		parts := make([]string, len(x))
		for i, e := range x {
			parts[i] = literal(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		if len(x) == 0 {
			return "{}"
		}
		parts := make([]string, 0, len(x))
		for _, k := range slices.Sorted(maps.Keys(x)) {
			parts = append(parts, bareOrQuoted(k)+" = "+literal(x[k]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return quote(fmt.Sprint(v))
}

// quote writes a TOML basic string; JSON's escapes are a subset of TOML's.
func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return `""`
	}
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

func bareOrQuoted(key string) string {
	const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if key == "" || strings.Trim(key, bare) != "" {
		return quote(key)
	}
	return key
}
