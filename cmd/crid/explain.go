package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/crid-project/crid/config"
	"github.com/crid-project/crid/image/reference"
	"github.com/crid-project/crid/image/registry"
)

func init() { Explain = explain }

// explain asks the registry configuration only: the image store is not opened,
// so it needs no lock and works beside a running daemon.
func explain(ctx context.Context, c *config.Config, ref string, out io.Writer) error {
	r, err := reference.Parse(ref)
	if err != nil {
		return err
	}
	lines, err := registry.New(registry.Config{CertsDirs: c.Registry.CertsDirs, UserAgent: "crid/" + version()}).
		Explain(ctx, r.Host(), strings.TrimPrefix(r.Name, r.Host()+"/"))
	if err != nil {
		return fmt.Errorf("explain %s: %w", r, err)
	}
	fmt.Fprintf(out, "%s is %s\n", ref, r)
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	return nil
}
