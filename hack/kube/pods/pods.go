// Package pods holds the static pods that a kubelet without a cluster runs: one file for each thing that a pod can ask of it. In the files
// @HOST@ stands for a folder of the machine, which Write fills in.
package pods

import (
	"embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Names of the pods, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // it is in the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Write puts the manifest of one pod into the folder that a kubelet watches. host is the folder for its hostPath volumes.
func Write(name, manifests, host string) error {
	data, err := files.ReadFile(name + ".yaml")
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(string(data), "@HOST@", host)
	// A kubelet reads what it sees: the file must be complete at once.
	hidden := filepath.Join(filepath.Dir(manifests), name+".new")
	if err := os.WriteFile(hidden, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(hidden, File(name, manifests))
}

// File is where Write puts the manifest; removing it ends the pod.
func File(name, manifests string) string { return filepath.Join(manifests, name+".yaml") }
