package kit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/crid-project/crid/e2e/project"
)

// Programs are the static executables that the images are made of.
type Programs struct {
	dir     string
	applets []string
}

// guestDir is where the sources of the programs are, relative to the source tree.
const guestDir = "e2e/images/guest"

// recipes tells for each program what it is made from and how. A source that changes makes its program be built again.
var recipes = []struct {
	name    string
	sources []string
	command func(src, out, work string) []string
}{
	{"busybox", []string{"busybox.sh"}, func(src, out, work string) []string {
		return []string{"bash", filepath.Join(src, "busybox.sh"), out, filepath.Join(work, "busybox-src")}
	}},
	{"pause", []string{"pause.c"}, compileC("pause.c")},
	{"nnp", []string{"nnp.c"}, compileC("nnp.c")},
	{"sh", []string{"sh.c"}, compileC("sh.c")},
	{"web", []string{"web/main.go"}, func(src, out, _ string) []string {
		return []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, filepath.Join(src, "web", "main.go")}
	}},
}

func compileC(file string) func(src, out, work string) []string {
	return func(src, out, _ string) []string {
		return []string{"gcc", "-static", "-Os", "-s", "-Wall", "-o", out, filepath.Join(src, file)}
	}
}

// Build makes the programs that are missing or older than their sources, in .build/images of the source tree, and returns all of
// them. The first time it compiles busybox, about half a minute; after that it takes no time. It is safe to run twice, not twice at once.
func Build(ctx context.Context) (*Programs, error) {
	root, err := project.Root()
	if err != nil {
		return nil, err
	}
	work, err := project.BuildDir()
	if err != nil {
		return nil, err
	}
	work = filepath.Join(work, "images")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the test programs: %w", err)
	}
	src := filepath.Join(root, guestDir)
	for _, r := range recipes {
		want, err := fingerprint(src, r.sources)
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", r.name, err)
		}
		out, stamp := filepath.Join(work, r.name), filepath.Join(work, r.name+".stamp")
		if have, err := os.ReadFile(stamp); err == nil && string(have) == want && isFile(out) {
			continue
		}
		args := r.command(src, out, work)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", r.name, err, text)
		}
		if err := os.WriteFile(stamp, []byte(want), 0o644); err != nil {
			return nil, fmt.Errorf("build %s: %w", r.name, err)
		}
	}
	return Open(ctx, work)
}

// Open takes programs that Build has made earlier, here or elsewhere.
func Open(ctx context.Context, dir string) (*Programs, error) {
	p := &Programs{dir: dir}
	for _, r := range recipes {
		if !isFile(p.path(r.name)) {
			return nil, fmt.Errorf("open the test programs: no %s in %s (make images)", r.name, dir)
		}
	}
	out, err := exec.CommandContext(ctx, p.path("busybox"), "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's applets: %w", err)
	}
	p.applets = strings.Fields(string(out))
	return p, nil
}

func (p *Programs) path(name string) string { return filepath.Join(p.dir, name) }

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// fingerprint is what a program's stamp holds: its sources, and what compiles them.
func fingerprint(dir string, files []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.GOARCH)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", f, len(b))
		h.Write(b)
		if filepath.Ext(f) == ".go" {
			fmt.Fprintln(h, runtime.Version())
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
