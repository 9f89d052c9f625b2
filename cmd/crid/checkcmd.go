package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crid-project/crid/cmd/crid/fitness"
	"github.com/crid-project/crid/config"
)

func checkCommand(f *flags) *cobra.Command {
	asJSON, quiet, daemonOnly := false, false, false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Is this node fit for pods, and is crid's own book-keeping right?",
		Long: "Looks at kernel, cgroups, runtimes, network, disks and limits, and asks a running crid whether its\n" +
			"records agree with the machine. Every warning and failure says how it is cured.\n" +
			"Exit code 1 if anything failed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []fitness.Finding
			c, err := f.load()
			switch {
			case err != nil && daemonOnly:
				return err
			case err != nil:
				list = append(list, fitness.Finding{Name: "configuration", Severity: fitness.Fail, Message: err.Error(), Cure: "correct it; \"crid config default\" shows every key"})
				c = config.Default()
			}
			if !daemonOnly {
				list = append(list, fitness.Examine(cmd.Context(), c)...)
			}
			if err == nil {
				list = append(list, ledger(cmd.Context(), c, daemonOnly)...)
			}
			if err := report(cmd.OutOrStdout(), list, asJSON, quiet); err != nil {
				return err
			}
			for _, x := range list {
				if x.Severity == fitness.Fail {
					return errSilent
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only warnings and failures")
	cmd.Flags().BoolVar(&daemonOnly, "records", false, "only the running crid's records")
	return cmd
}

// ledger asks the daemon for its invariants. No daemon is a failure only if
// it alone was asked for.
func ledger(ctx context.Context, c *config.Config, must bool) []fitness.Finding {
	const name = "records"
	var list []fitness.Finding
	err := newDaemonClient(c).getJSON(ctx, "/check", &list)
	switch {
	case errors.Is(err, errNoDaemon) && !must:
		return []fitness.Finding{{Name: name, Severity: fitness.OK, Message: "crid is not running: not looked at"}}
	case errors.Is(err, errNoDaemon):
		return []fitness.Finding{{Name: name, Severity: fitness.Fail, Message: err.Error(), Cure: "start it, or give --state as it was started with"}}
	case err != nil:
		return []fitness.Finding{{Name: name, Severity: fitness.Fail, Message: err.Error(), Cure: "look into crid's log"}}
	case len(list) == 0:
		return []fitness.Finding{{Name: name, Severity: fitness.OK, Message: "records and machine agree"}}
	}
	for i := range list {
		list[i].Severity = severity(string(list[i].Severity))
	}
	return list
}

// severity maps a daemon's word to ours; an unknown one is not taken lightly.
func severity(s string) fitness.Level {
	switch strings.ToLower(s) {
	case "ok", "info", "debug":
		return fitness.OK
	case "warn", "warning":
		return fitness.Warn
	}
	return fitness.Fail
}

// report prints the findings.
func report(w io.Writer, list []fitness.Finding, asJSON, quiet bool) error {
	shown := []fitness.Finding{}
	count := map[fitness.Level]int{}
	for _, x := range list {
		count[x.Severity]++
		if !quiet || x.Severity != fitness.OK {
			shown = append(shown, x)
		}
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(shown)
	}
	for _, x := range shown {
		fmt.Fprintf(w, "%-4s  %-18s %s\n", x.Severity, x.Name, strings.ReplaceAll(x.Message, "\n", "\n"+strings.Repeat(" ", 25)))
		if x.Cure != "" {
			fmt.Fprintf(w, "%25s-> %s\n", "", x.Cure)
		}
	}
	_, err := fmt.Fprintf(w, "%d ok, %d warnings, %d failures\n", count[fitness.OK], count[fitness.Warn], count[fitness.Fail])
	return err
}
