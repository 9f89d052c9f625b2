package spec

import (
	"fmt"
	"slices"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/spec/confine"
	"github.com/crid-project/crid/container/spec/resources"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultOCIVersion is written where the facts do not say what the runtime
// accepts: every runtime still in use reads it.
const defaultOCIVersion = "1.0.2"

// build makes the spec. It changes neither the builder nor the facts.
func (b *builder) build(f plan.Facts) (*oci.Spec, error) {
	res, err := resources.Resources("config.linux.resources", b.cfg.GetLinux().GetResources(), f.Kernel)
	if err != nil {
		return nil, err
	}
	s := &oci.Spec{
		Version: f.Kernel.OCIVersion,
		Root:    &oci.Root{Path: f.Rootfs, Readonly: b.plan.ReadonlyRootfs},
		Linux:   &oci.Linux{CgroupsPath: f.CgroupsPath, Resources: res},
	}
	if s.Version == "" {
		s.Version = defaultOCIVersion
	}
	if err := b.addProcess(s, f); err != nil {
		return nil, err
	}
	if err := b.addNamespaces(s, f); err != nil {
		return nil, err
	}
	if err := b.addMounts(s, f); err != nil {
		return nil, err
	}
	if err := b.addDevices(s); err != nil {
		return nil, err
	}
	b.addAnnotations(s, f)
	if err := b.addSecurity(s, f); err != nil {
		return nil, err
	}
	return s, b.addCDI(s)
}

func (b *builder) addSecurity(s *oci.Spec, f plan.Facts) (err error) {
	if !b.plan.Privileged {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = confine.Masks(b.masked, b.readonly, b.plan.UserNS != nil, f.Kernel.MaskedPaths)
	}
	if err := confine.ApplySeccomp(s, b.seccomp.Default(b.opts.SeccompProfile), b.plan.Privileged, f.Kernel.Seccomp, b.opts.ReadFile); err != nil {
		return err
	}
	s.Process.ApparmorProfile, err = confine.AppArmorName(b.apparmor, b.plan.Privileged, f.Kernel.AppArmor, b.opts.AppArmor)
	if err != nil {
		return err
	}
	return b.addLabels(s, f)
}

// addLabels sets the SELinux labels: the container's own wish, else the pod's;
// a privileged container runs unlabelled unless it wishes otherwise.
func (b *builder) addLabels(s *oci.Spec, f plan.Facts) error {
	if b.opts.SELinux == nil || !f.Kernel.SELinux {
		return nil
	}
	options := b.selinux
	if len(options) == 0 {
		if !b.plan.Privileged {
			s.Process.SelinuxLabel, s.Linux.MountLabel = f.ProcessLabel, f.MountLabel
			return nil
		}
		options = []string{"disable"}
	}
	process, mount, err := b.opts.SELinux(options)
	if err != nil {
		return fmt.Errorf("config.linux.security_context.selinux_options: make labels: %w", err)
	}
	s.Process.SelinuxLabel, s.Linux.MountLabel = process, mount
	return nil
}

// addCDI lets CDI edit the spec, last, and puts what it added in order.
func (b *builder) addCDI(s *oci.Spec) error {
	if len(b.cdi) == 0 {
		return nil
	}
	if err := b.opts.CDI(s, slices.Clone(b.cdi)); err != nil {
		return fmt.Errorf("config.CDI_devices: %w", err)
	}
	sortMounts(s.Mounts)
	return nil
}
