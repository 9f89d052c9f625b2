package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/crid-project/crid/container/spec/field"
	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// device is one checked entry of config.devices.
type device struct {
	index            int
	dst, src, access string
}

const maxDevices = 4096

func (b *builder) checkDevices() error {
	if n := len(b.cfg.GetDevices()); n > maxDevices {
		return field.Invalid("config.devices", "has %d entries, at most %d are taken", n, maxDevices)
	}
	for i, d := range b.cfg.GetDevices() {
		name := field.At("config.devices", i)
		dst, err := field.AbsPath(name+".container_path", d.GetContainerPath(), true)
		if err != nil {
			return err
		}
		src, err := field.AbsPath(name+".host_path", d.GetHostPath(), false)
		if err != nil {
			return err
		}
		access := d.GetPermissions()
		if access == "" || len(access) > 3 || strings.Trim(access, "rwm") != "" {
			return field.Invalid(name+".permissions", `must be letters of "rwm", got %q`, field.Short(access))
		}
		b.devices = append(b.devices, device{index: i, dst: dst, src: src, access: access})
	}
	for i, d := range b.cfg.GetCDIDevices() {
		name := d.GetName()
		if len(name) > 512 || !parser.IsQualifiedName(name) {
			return field.Invalid(field.At("config.CDI_devices", i)+".name", `must be of the form "vendor.com/class=name", got %q`, field.Short(name))
		}
		if !slices.Contains(b.cdi, name) {
			b.cdi = append(b.cdi, name)
		}
	}
	if len(b.cdi) > 0 && b.opts.CDI == nil {
		return field.Unsupported("config.CDI_devices", "this handler has no CDI")
	}
	return nil
}

// own gives a device to the user that the configuration names by number, if the
// node wants that; what is not named stays with the node's owner.
func (b *builder) own(dev *oci.LinuxDevice) {
	if !b.opts.DeviceOwnership {
		return
	}
	id := func(to **uint32, want *int64) {
		if want != nil {
			n := uint32(*want)
			*to = &n
		}
	}
	id(&dev.UID, b.plan.User.UID)
	id(&dev.GID, b.plan.User.GID)
}

// addDevices fills in the device nodes and the cgroup's rules: everything
// denied, then what was asked for. The runtime itself allows the usual ones
// (null, zero, tty and so on). A privileged container gets all.
func (b *builder) addDevices(s *oci.Spec) error {
	rules := []oci.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range b.devices {
		name := field.At("config.devices", d.index)
		if b.opts.Devices == nil {
			return field.Unsupported(name, "devices cannot be looked up here")
		}
		found, err := b.opts.Devices(d.src)
		if err != nil {
			return fmt.Errorf("%s.host_path: %w", name, err)
		}
		if len(found) == 0 {
			return field.Invalid(name+".host_path", "there is no device at or below %q", d.src)
		}
		for _, dev := range found {
			// Below a directory the rest of the path is kept.
			rest := strings.TrimPrefix(dev.Path, d.src)
			if rest == dev.Path {
				rest = ""
			}
			dev.Path = path.Join(d.dst, rest)
			b.own(&dev)
			s.Linux.Devices = append(s.Linux.Devices, dev)
			rules = append(rules, oci.LinuxDeviceCgroup{Allow: true, Type: dev.Type, Major: &dev.Major, Minor: &dev.Minor, Access: d.access})
		}
	}
	if b.plan.Privileged && !b.opts.PrivilegedWithoutHostDevices {
		if b.opts.HostDevices == nil {
			return field.Unsupported("config.linux.security_context.privileged", "the node's devices cannot be listed here")
		}
		host, err := b.opts.HostDevices()
		if err != nil {
			return fmt.Errorf("config.linux.security_context.privileged: list the node's devices: %w", err)
		}
		for _, dev := range host {
			if !slices.ContainsFunc(s.Linux.Devices, func(d oci.LinuxDevice) bool { return d.Path == dev.Path }) {
				s.Linux.Devices = append(s.Linux.Devices, dev)
			}
		}
		rules = append(rules, oci.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
	}
	s.Linux.Resources.Devices = rules
	return nil
}
