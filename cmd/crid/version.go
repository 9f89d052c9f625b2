package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/cmd/crid/fitness"
	"github.com/crid-project/crid/config"
)

// buildVersion is set by the linker: -ldflags "-X main.buildVersion=v1.2.3".
var buildVersion string

// version is crid's own: the linker's, else what the module says.
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, revision, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if v == "" || v == "(devel)" {
		v = "devel"
		if revision != "" {
			v += "-" + revision + dirty
		}
	}
	return v
}

// part is one component with its version.
type part struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path,omitempty"`
}

// parts lists crid and what it works with here.
func parts(ctx context.Context, c *config.Config) []part {
	out := []part{{Name: "crid", Version: version()}, {Name: "go", Version: runtime.Version()}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		out = append(out, part{Name: "linux", Version: unix.ByteSliceToString(u.Release[:])})
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "k8s.io/cri-api" {
				out = append(out, part{Name: "cri-api", Version: d.Version})
			}
		}
	}
	if c == nil {
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		r := c.Runtimes[name]
		for _, x := range []struct{ program, flag string }{{fitness.ShimProgram(r), "-v"}, {fitness.Binary(r), "--version"}} {
			if x.program == "" {
				continue
			}
			p := part{Name: name + ": " + x.program, Version: "not found"}
			if path, err := c.FindProgram(x.program); err == nil {
				p.Path, p.Version = path, "unknown"
				if v, err := fitness.Version(ctx, path, x.flag); err == nil {
					p.Version = v
				}
			}
			out = append(out, p)
		}
	}
	return out
}

func versionCommand(f *flags) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of crid and its parts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A faulty configuration does not keep crid from telling its version.
			c, err := f.load()
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "crid: %v\n", err)
			}
			list := parts(cmd.Context(), c)
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(list)
			}
			for _, p := range list {
				line := fmt.Sprintf("%-34s %s", p.Name, p.Version)
				if p.Path != "" {
					line += "  (" + p.Path + ")"
				}
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
