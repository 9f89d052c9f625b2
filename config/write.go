package config

import (
	"fmt"
	"slices"
	"strings"
)

// derived are the keys that, left out, follow root or state.
var derived = []string{"address", "shim_socket_dir", "cni.cache_dir", "images.preload_dir"}

// DefaultTOML is a commented file with every key at its default.
func DefaultTOML() string {
	d := Default()
	d.derive()
	var b strings.Builder
	b.WriteString("# crid's configuration. Every key is optional (but for version) and shown at its default.\n" +
		"# Files in conf.d/*.toml beside this one are laid over it in lexical order.\n\n")
	write(&b, d, true)
	return b.String()
}

// Dump is the configuration in effect, as TOML that can be read again. There
// are no secrets in crid's configuration.
func (c *Config) Dump() string {
	var b strings.Builder
	write(&b, c, false)
	return b.String()
}

// write prints a configuration, with the keys' meanings if asked.
func write(b *strings.Builder, c *Config, comments bool) {
	means := map[string]string{}
	for _, k := range meanings {
		means[k.Name] = k.Meaning
	}
	section := ""
	for _, e := range flatten(c) {
		table, key := "", e.name
		if i := strings.LastIndexByte(e.name, '.'); i >= 0 {
			table, key = e.name[:i], e.name[i+1:]
		}
		if table != section {
			fmt.Fprintf(b, "\n[%s]\n", table)
			section = table
		}
		doc := e.name
		if strings.HasPrefix(table, "runtimes.") {
			doc = "runtimes.*." + key
		}
		if comments {
			fmt.Fprintf(b, "# %s\n", means[doc])
		}
		if comments && slices.Contains(derived, e.name) {
			b.WriteString("#") // unwritten it follows root or state
		}
		fmt.Fprintf(b, "%s = %s\n", key, e.value)
	}
}

// Changes compares two configurations for a reload: which changed keys can be
// taken over at once, and which need a restart of crid.
func Changes(before, after *Config) (live, restart []string) {
	isLive := map[string]bool{}
	for _, k := range meanings {
		isLive[k.Name] = k.Live
	}
	old := map[string]string{}
	for _, e := range flatten(before) {
		old[e.name] = e.value
	}
	note := func(name string) {
		if isLive[name] {
			live = append(live, name)
		} else {
			restart = append(restart, name)
		}
	}
	for _, e := range flatten(after) {
		if v, ok := old[e.name]; !ok || v != e.value {
			note(e.name)
		}
		delete(old, e.name)
	}
	for _, e := range flatten(before) {
		if _, left := old[e.name]; left {
			note(e.name)
		}
	}
	return live, restart
}
