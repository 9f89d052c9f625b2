package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crid-project/crid/config"
)

func configCommand(f *flags) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print or check the configuration"}
	table := false
	def := &cobra.Command{
		Use: "default", Short: "Print a commented file with every key at its default", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := config.DefaultTOML()
			if table {
				text = config.Table()
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	def.Flags().BoolVar(&table, "markdown", false, "as a table in Markdown")
	dump := &cobra.Command{
		Use: "dump", Short: "Print the configuration in effect: files, drop-ins and flags together", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), c.Dump())
			return err
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Check the configuration; exit code 1 if it is not valid", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := f.load(); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "configuration is valid")
			return err
		},
	}
	cmd.AddCommand(def, dump, check)
	return cmd
}
