package spec

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/crid-project/crid/container/plan"
	"github.com/crid-project/crid/container/plan/signal"
	"github.com/crid-project/crid/container/spec/field"
	"github.com/crid-project/crid/container/spec/resources"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	oci "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is PATH where neither image nor configuration sets it.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// process checks command, args, envs, working_dir and stop_signal.
func (b *builder) process() error {
	for _, l := range []struct {
		name string
		list []string
	}{{"config.command", b.cfg.GetCommand()}, {"config.args", b.cfg.GetArgs()}} {
		for i, a := range l.list {
			if strings.ContainsRune(a, 0) || !utf8.ValidString(a) {
				return field.Invalid(field.At(l.name, i), "must be UTF-8 without NUL, got %q", field.Short(a))
			}
		}
	}
	for i, e := range b.cfg.GetEnvs() {
		name, key, value := field.At("config.envs", i), e.GetKey(), string(e.GetValue())
		switch {
		case key == "" || strings.ContainsAny(key, "=\x00") || !utf8.ValidString(key):
			return field.Invalid(name+".key", `must not be empty or contain "=" or NUL, got %q`, field.Short(key))
		case strings.ContainsRune(value, 0):
			return field.Invalid(name+".value", "%q must not contain NUL", field.Short(key))
		}
		// A runtime reads its spec as JSON, which cannot carry other bytes:
		// they become U+FFFD, as with the peers and CRI's own JSON form.
		b.env = append(b.env, key+"="+strings.ToValidUTF8(value, "\uFFFD"))
	}
	if dir := b.cfg.GetWorkingDir(); dir != "" {
		if _, err := workingDir("config.working_dir", dir); err != nil {
			return err
		}
	}
	sig, err := StopSignal(b.cfg.GetStopSignal())
	b.plan.StopSignal = sig
	return err
}

// procLink matches directories that are links out of the container, or may
// become some: what /proc shows of processes, and /dev's links into it. A
// container started there would stand on a descriptor of the runtime
// (CVE-2024-21626).
var procLink = regexp.MustCompile(`^(/proc/(self|thread-self|[0-9]+)|/dev/(fd|stdin|stdout|stderr))(/|$)`)

// workingDir returns dir absolute and clean.
func workingDir(name, dir string) (string, error) {
	if dir == "" {
		return "/", nil
	}
	clean, err := field.AbsPath(name, path.Join("/", dir), true)
	if err != nil {
		return "", err
	}
	if procLink.MatchString(clean) {
		return "", field.Invalid(name, "must not be inside a process's directory of /proc, got %q", field.Short(dir))
	}
	return clean, nil
}

// args applies CRI's rules: command replaces the image's entrypoint and, with
// it, its cmd; args alone replace its cmd.
func (b *builder) args(image imagespec.ImageConfig) ([]string, error) {
	command, args := b.cfg.GetCommand(), b.cfg.GetArgs()
	if len(command) == 0 {
		if len(args) == 0 {
			args = image.Cmd
		}
		// A single empty entrypoint is how some builders clear it.
		if len(image.Entrypoint) != 1 || image.Entrypoint[0] != "" {
			command = image.Entrypoint
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 {
		return nil, field.Invalid("config.command", "no command: neither the configuration nor the image %q has one", b.plan.Image)
	}
	for _, a := range all {
		if strings.ContainsRune(a, 0) {
			return nil, field.Invalid("image config", "Entrypoint and Cmd must not contain NUL, got %q", field.Short(a))
		}
	}
	if all[0] == "" {
		return nil, field.Invalid("config.command", "the first word must not be empty")
	}
	return all, nil
}

// environ returns the environment: defaults, then the image's, then the
// configuration's, later ones replacing earlier ones in place.
func (b *builder) environ(f plan.Facts) []string {
	env := environment{}
	env.set(defaultPath)
	if b.plan.TTY {
		env.set("TERM=xterm")
	}
	if f.Hostname != "" {
		env.set("HOSTNAME=" + f.Hostname)
	}
	for _, e := range f.Image.Env {
		// The image is not trusted: what is no variable is left out.
		if k, _, ok := strings.Cut(e, "="); ok && k != "" && !strings.ContainsRune(e, 0) {
			env.set(strings.ToValidUTF8(e, "\uFFFD"))
		}
	}
	for _, e := range b.env {
		env.set(e)
	}
	if home := f.Home; !env.has("HOME") {
		if home == "" || home[0] != '/' || strings.ContainsAny(home, "\x00\r\n") {
			home = "/"
		}
		env.set("HOME=" + home)
	}
	return env.list
}

// environment is a list of variables without doubles.
type environment struct {
	list []string
	at   map[string]int
}

func (e *environment) set(v string) {
	key, _, _ := strings.Cut(v, "=")
	if i, ok := e.at[key]; ok {
		e.list[i] = v
		return
	}
	if e.at == nil {
		e.at = map[string]int{}
	}
	e.at[key] = len(e.list)
	e.list = append(e.list, v)
}

func (e *environment) has(key string) bool { _, ok := e.at[key]; return ok }

// addProcess fills in process.
func (b *builder) addProcess(s *oci.Spec, f plan.Facts) error {
	args, err := b.args(f.Image)
	if err != nil {
		return err
	}
	cwd, err := workingDir("config.working_dir", b.cfg.GetWorkingDir())
	if b.cfg.GetWorkingDir() == "" {
		cwd, err = workingDir("image config WorkingDir", f.Image.WorkingDir)
	}
	if err != nil {
		return err
	}
	// The image's stop signal is the image's word: looked at here so that a
	// container that cannot be stopped properly is refused at its creation.
	if b.plan.StopSignal == "" && f.Image.StopSignal != "" {
		if _, err := signal.Parse(f.Image.StopSignal); err != nil {
			return err
		}
	}
	caps, err := b.caps.Sets(f.Kernel.Capabilities)
	if err != nil {
		return err
	}
	adj, err := resources.OOMScoreAdj("config.linux.resources", b.cfg.GetLinux().GetResources(), f.Kernel)
	if err != nil {
		return err
	}
	user := f.User
	user.AdditionalGids = slices.Clone(user.AdditionalGids)
	// Without the primary group among them, a file that denies the group but
	// not others would be open to it (CVE-2023-25173).
	if !slices.Contains(user.AdditionalGids, user.GID) {
		user.AdditionalGids = append([]uint32{user.GID}, user.AdditionalGids...)
	}
	s.Process = &oci.Process{
		Terminal:        b.plan.TTY,
		User:            user,
		Args:            args,
		Env:             b.environ(f),
		Cwd:             cwd,
		Capabilities:    caps,
		NoNewPrivileges: b.cfg.GetLinux().GetSecurityContext().GetNoNewPrivs(),
		OOMScoreAdj:     &adj,
		Rlimits:         slices.Clone(b.opts.Rlimits),
	}
	return nil
}
