package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/crid-project/crid/config"
)

// errSilent ends with exit code 1 after the command has said why itself.
var errSilent = errors.New("")

func main() {
	if err := newCommand().ExecuteContext(context.Background()); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintf(os.Stderr, "crid: %v\n", err)
		}
		os.Exit(1)
	}
}

// flags are those that every command takes.
type flags struct {
	file      string
	overrides config.Overrides
}

// load reads the configuration as the flags say.
func (f *flags) load() (*config.Config, error) { return config.Load(f.file, f.overrides) }

// newCommand is the whole command line. Without a command crid serves.
func newCommand() *cobra.Command {
	f := &flags{}
	root := &cobra.Command{
		Use:   "crid",
		Short: "A CRI runtime service for Kubernetes nodes",
		Long: "crid runs pods for a kubelet (or crictl) over a unix socket. Without a command it serves.\n" +
			"Stopping it leaves pods running; \"crid reset\" is what ends them.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runServe(cmd.Context(), f) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	p := root.PersistentFlags()
	p.StringVarP(&f.file, "config", "c", "", "configuration `FILE` (default "+config.DefaultPath+", which may be missing)")
	p.StringVar(&f.overrides.Root, "root", "", "`DIR` for what outlives a reboot")
	p.StringVar(&f.overrides.State, "state", "", "`DIR` for what does not")
	p.StringVar(&f.overrides.Address, "address", "", "CRI `SOCKET`")
	p.StringVar(&f.overrides.LogLevel, "log-level", "", "debug, info, warn or error")
	serve := &cobra.Command{
		Use: "serve", Short: "Serve (what crid does without a command)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServe(cmd.Context(), f) },
	}
	root.AddCommand(serve, configCommand(f), checkCommand(f), versionCommand(f), resetCommand(f), imagesCommand(f), explainCommand(f))
	return root
}

// missing is the answer of a command whose hook nobody has filled in.
func missing(what string) error {
	return fmt.Errorf("this build of crid cannot %s", what)
}
