package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/crid-project/crid/e2e/project"
)

// Proc is one live process, as /proc shows it. A zombie is not alive: on some machines nobody reaps it for seconds.
type Proc struct {
	Pid     int
	Command string // arguments, shortened
	Cwd     string
	start   uint64
}

func (p Proc) String() string { return fmt.Sprintf("%d %s", p.Pid, p.Command) }

// readProc is false for a pid that nobody has, or that only a zombie has.
func readProc(pid int) (Proc, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Proc{}, false
	}
	// the name, in parentheses, may hold anything
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return Proc{}, false
	}
	p := Proc{Pid: pid}
	p.start, _ = strconv.ParseUint(fields[19], 10, 64)
	args, _ := os.ReadFile(dir + "/cmdline")
	p.Command = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
	p.Cwd, _ = os.Readlink(dir + "/cwd")
	return p, true
}

// Processes are all processes of the machine that live.
func Processes() []Proc { return allProcs() }

func allProcs() []Proc {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var procs []Proc
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := readProc(pid); ok {
				procs = append(procs, p)
			}
		}
	}
	return procs
}

// processes are the daemon, shims and runtimes of a home: programs of this project's bin/ that have its path among the arguments or
// work in it. (Somebody who only reads a log there is none of them.)
func (h *Home) processes() []Proc {
	bin, err := project.Bin("")
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(allProcs(), func(p Proc) bool {
		exe, _ := os.Readlink("/proc/" + strconv.Itoa(p.Pid) + "/exe")
		ours := strings.HasPrefix(exe, bin+"/") || strings.Contains(exe, "memfd:runc")
		here := strings.Contains(p.Command, h.Dir+"/") || p.Cwd == h.Dir || strings.HasPrefix(p.Cwd, h.Dir+"/")
		return !ours || !here
	})
}

// members are the processes in the home's cgroups.
func (h *Home) members() []Proc {
	var procs []Proc
	seen := map[int]bool{}
	for _, dir := range h.cgroupDirs() {
		for _, p := range members(dir) {
			if !seen[p.Pid] {
				seen[p.Pid] = true
				procs = append(procs, p)
			}
		}
	}
	return procs
}

const cgroupRoot = "/sys/fs/cgroup"

// cgroupDirs lists the home's cgroups in every hierarchy, parents first.
func (h *Home) cgroupDirs() []string {
	tops := []string{cgroupRoot + h.Cgroup}
	if entries, err := os.ReadDir(cgroupRoot); err == nil {
		for _, e := range entries {
			tops = append(tops, filepath.Join(cgroupRoot, e.Name())+h.Cgroup)
		}
	}
	var dirs []string
	for _, top := range tops {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // it may vanish while we look
		})
	}
	return dirs
}

// CgroupsOf are the folders of a container's or sandbox's cgroup, one in each hierarchy that has it.
func (h *Home) CgroupsOf(id string) []string {
	return slices.DeleteFunc(h.cgroupDirs(), func(dir string) bool { return !strings.Contains(filepath.Base(dir), id) })
}

// ProcsIn are the live processes in cgroups, those below included.
func ProcsIn(dirs []string) []Proc {
	var procs []Proc
	seen := map[int]bool{}
	for _, top := range dirs {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return nil //nolint:nilerr // it may vanish while we look
			}
			for _, p := range members(path) {
				if !seen[p.Pid] {
					seen[p.Pid] = true
					procs = append(procs, p)
				}
			}
			return nil
		})
	}
	return procs
}

func members(dir string) []Proc {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var procs []Proc
	for f := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(f); err == nil {
			if p, ok := readProc(pid); ok {
				procs = append(procs, p)
			}
		}
	}
	return procs
}

// Shims are the home's shims that live.
func (h *Home) Shims() []Proc {
	return slices.DeleteFunc(h.processes(), func(p Proc) bool {
		fields := strings.Fields(p.Command)
		return len(fields) == 0 || !strings.Contains(fields[0], "containerd-shim") || slices.Contains(fields, "delete") || slices.Contains(fields, "start")
	})
}

// Helpers are the pids of what a runtime keeps running for its pods besides their containers: shims, and pauses that hold a sandbox.
func (h *Home) Helpers() []int {
	var pids []int
	for _, p := range h.processes() {
		if strings.Contains(p.Command, "containerd-shim") {
			pids = append(pids, p.Pid)
		}
	}
	for _, p := range h.members() {
		if fields := strings.Fields(p.Command); len(fields) > 0 && strings.HasSuffix(fields[0], "pause") {
			pids = append(pids, p.Pid)
		}
	}
	return pids
}

// Find is the live process that a pid belongs to now; false if there is none.
func Find(pid int) (Proc, bool) { return readProc(pid) }

// Start is its start time, in the kernel's ticks since boot.
func (p Proc) Start() uint64 { return p.start }

// Lives tells whether it is still that process, and not another one with its pid.
func (p Proc) Lives() bool {
	now, ok := readProc(p.Pid)
	return ok && now.start == p.start
}

// Signal sends a signal to it through a pidfd, after a look at the start time: never to a process that only got the same pid.
func (p Proc) Signal(signal unix.Signal) error {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return fmt.Errorf("signal %s: %w", p, err)
	}
	defer unix.Close(fd)
	if !p.Lives() {
		return fmt.Errorf("signal %s: %w", p, unix.ESRCH)
	}
	return unix.PidfdSendSignal(fd, signal, nil, 0)
}

// Alive tells whether a pid is that of a live process; a zombie is not one.
func Alive(pid int) bool {
	_, ok := readProc(pid)
	return ok
}
