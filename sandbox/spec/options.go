package spec

import (
	cplan "github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
)

// Options are what a pod's plan needs beside its configuration.
type Options struct {
	// Kernel is what the machine and the handler's runtime offer.
	Kernel cplan.Kernel
	// ReadFile reads a file of the node, at most limit bytes (a seccomp profile).
	ReadFile func(path string, limit int64) ([]byte, error)
	// SeccompProfile is the file of the profile for RuntimeDefault; empty is
	// the built-in one.
	SeccompProfile string
	// SELinux makes labels; nil where SELinux is off. It is called by New, for
	// the labels that the pod's containers share, and may answer differently
	// each time: the hands keep the first answer in the record.
	SELinux confine.LabelFunc
	// AppArmor looks up and loads profiles.
	AppArmor confine.AppArmorSource
	// PodAnnotations is the handler's allow-list of annotations that go into
	// the spec of the sandbox container.
	PodAnnotations []string
}
