package validate

import (
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxName bounds names of pods, namespaces and containers; Kubernetes'
	// own limit is 253.
	maxName = 256
	// maxImage bounds an image reference: a name, a tag and a digest.
	maxImage = 1024
	// maxCommand is what one exec can carry (the kernel's ARG_MAX).
	maxCommand = 2 << 20
	// maxSecret bounds credentials; tokens of some kilobytes are common.
	maxSecret = 64 << 10
)

func podConfig(field string, c *cri.PodSandboxConfig) error {
	if c == nil {
		return Bad(field, "is missing")
	}
	md := c.GetMetadata()
	if md == nil {
		return Bad(field+".metadata", "is missing")
	}
	if err := name(field+".metadata.name", md.GetName(), maxName); err != nil {
		return err
	}
	if err := name(field+".metadata.namespace", md.GetNamespace(), maxName); err != nil {
		return err
	}
	if err := name(field+".metadata.uid", md.GetUid(), maxName); err != nil {
		return err
	}
	if err := text(field+".hostname", c.GetHostname(), maxName); err != nil {
		return err
	}
	if err := text(field+".log_directory", c.GetLogDirectory(), 4096); err != nil {
		return err
	}
	if err := text(field+".linux.cgroup_parent", c.GetLinux().GetCgroupParent(), 4096); err != nil {
		return err
	}
	if err := Resources(field+".linux.overhead", c.GetLinux().GetOverhead()); err != nil {
		return err
	}
	return Resources(field+".linux.resources", c.GetLinux().GetResources())
}

func containerConfig(field string, c *cri.ContainerConfig) error {
	if c == nil {
		return Bad(field, "is missing")
	}
	if c.GetMetadata() == nil {
		return Bad(field+".metadata", "is missing")
	}
	if err := name(field+".metadata.name", c.GetMetadata().GetName(), maxName); err != nil {
		return err
	}
	if c.GetImage() == nil {
		return Bad(field+".image", "is missing")
	}
	if err := imageSpec(field+".image", c.GetImage(), true); err != nil {
		return err
	}
	if err := text(field+".log_path", c.GetLogPath(), 4096); err != nil {
		return err
	}
	return Resources(field+".linux.resources", c.GetLinux().GetResources())
}

// Resources checks limits that no kernel would take: negative numbers (-1 is
// "unlimited" where cgroups know that) and unified keys that are not plain
// file names. Nil passes.
func Resources(field string, r *cri.LinuxContainerResources) error {
	if r == nil {
		return nil
	}
	for _, v := range []struct {
		name string
		n    int64
		min  int64
	}{
		{"cpu_period", r.GetCpuPeriod(), 0},
		{"cpu_quota", r.GetCpuQuota(), -1},
		{"cpu_shares", r.GetCpuShares(), 0},
		{"memory_limit_in_bytes", r.GetMemoryLimitInBytes(), -1},
		{"memory_swap_limit_in_bytes", r.GetMemorySwapLimitInBytes(), -1},
	} {
		if v.n < v.min {
			return Bad(field+"."+v.name, "is negative")
		}
	}
	if a := r.GetOomScoreAdj(); a < -1000 || a > 1000 {
		return Bad(field+".oom_score_adj", "is outside -1000 to 1000")
	}
	for _, set := range [][2]string{{"cpuset_cpus", r.GetCpusetCpus()}, {"cpuset_mems", r.GetCpusetMems()}} {
		if err := cpuset(field+"."+set[0], set[1]); err != nil {
			return err
		}
	}
	for _, h := range r.GetHugepageLimits() {
		if err := name(field+".hugepage_limits.page_size", h.GetPageSize(), 32); err != nil {
			return err
		}
	}
	for k := range r.GetUnified() {
		if !unifiedKey(k) {
			return Bad(field+".unified", "has a key that is not the name of a cgroup file")
		}
	}
	return nil
}

// cpuset accepts the characters of the kernel's list format ("0-3,7").
func cpuset(field, s string) error {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && c != ',' && c != '-' && c != ' ' {
			return Bad(field, `is not a list such as "0-3,7"`)
		}
	}
	if len(s) > 8192 {
		return Bad(field, "is longer than 8192 bytes")
	}
	return nil
}

func unifiedKey(k string) bool {
	dot := false
	for i := range len(k) {
		c := k[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-':
		case c == '.' && i > 0 && k[i-1] != '.':
			dot = true
		default:
			return false
		}
	}
	return dot && len(k) <= 64
}

func command(field string, cmd []string) error {
	if len(cmd) == 0 || cmd[0] == "" {
		return Bad(field, "is empty: name the program to run")
	}
	total := 0
	for _, a := range cmd {
		total += len(a) + 1
	}
	if total > maxCommand {
		return Bad(field, "is longer than %d bytes", maxCommand)
	}
	return nil
}

func streams(tty, stdin, stdout, stderr bool) error {
	if !stdin && !stdout && !stderr {
		return Bad("stdin", "stdout and stderr are all false: ask for at least one")
	}
	if tty && stderr {
		return Bad("stderr", "must be false with tty: a terminal has one output")
	}
	return nil
}

func imageSpec(field string, s *cri.ImageSpec, required bool) error {
	if s.GetImage() == "" {
		if required {
			return Bad(field+".image", "is empty")
		}
		return nil
	}
	for _, v := range [][2]string{{"image", s.GetImage()}, {"user_specified_image", s.GetUserSpecifiedImage()}, {"image_ref", s.GetImageRef()}} {
		if err := text(field+"."+v[0], v[1], maxImage); err != nil {
			return err
		}
	}
	return text(field+".runtime_handler", s.GetRuntimeHandler(), maxName)
}

func auth(field string, a *cri.AuthConfig) error {
	for _, v := range [][2]string{
		{"username", a.GetUsername()}, {"password", a.GetPassword()}, {"auth", a.GetAuth()},
		{"identity_token", a.GetIdentityToken()}, {"registry_token", a.GetRegistryToken()},
	} {
		if len(v[1]) > maxSecret {
			return Bad(field+"."+v[0], "is longer than %d bytes", maxSecret)
		}
	}
	return text(field+".server_address", a.GetServerAddress(), 4096)
}

func notNegative(field string, n int64) error {
	if n < 0 {
		return Bad(field, "is negative")
	}
	return nil
}
