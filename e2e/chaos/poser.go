package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Poser is a program that stands in for another one and does what that does, until it is told otherwise. It is a shell script: each start
// costs a few milliseconds.
type Poser struct {
	Path    string // of the program
	control string
	mu      sync.Mutex
}

// How a poser treats a verb.
const (
	Fail    = "fail"    // says why, status 1
	Hang    = "hang"    // for so many seconds, but no longer than it is told to, then fails
	Nothing = "nothing" // does nothing and says that it did
	Slow    = "slow"    // does it after so many seconds
	Late    = "late"    // does it, and answers so many seconds later
	Broken  = "broken"  // does it, and then fails
	Garbage = "garbage" // answers what no one can read, status 0
)

const script = `#!/bin/sh
# stands in for %[1]s
IFS=: read -r on how seconds <%[2]s
%[3]s
if [ "$on" = "$verb" ]; then
	case $how in
	fail) %[4]s; exit 1 ;;
	hang)
		while [ "$seconds" -gt 0 ] && IFS=: read -r now still rest <%[2]s && [ "$now:$still" = "$on:$how" ]; do
			sleep 1
			seconds=$((seconds - 1))
		done
		%[4]s
		exit 1
		;;
	nothing) exit 0 ;;
	slow) sleep "$seconds" ;;
	late) %[1]s "$@"; code=$?; sleep "$seconds"; exit $code ;;
	broken) %[1]s "$@" >/dev/null; %[4]s; exit 1 ;;
	garbage) echo "'{][}'"; exit 0 ;;
	esac
fi
exec %[1]s "$@"
`

// NewRunc makes a poser for an OCI runtime in a folder. Verbs are its commands: "create", "start", "kill", "delete", "exec", ...
func NewRunc(dir, program string) (*Poser, error) {
	return newPoser(dir, "chaos-runc", program,
		`verb=; for a in "$@"; do case $a in create|start|kill|delete|state|exec|update|ps|pause|resume|features) verb=$a; break ;; esac; done`,
		`echo "chaos: no $verb today" >&2`)
}

// PluginName is the type of the posing CNI plugin in a network configuration.
const PluginName = "crid-chaos"

// NewPlugin makes a poser for a CNI plugin. Verbs are CNI's: "ADD", "DEL", ...
func NewPlugin(dir, program string) (*Poser, error) {
	return newPoser(dir, PluginName, program, `verb=$CNI_COMMAND`, `echo '{"cniVersion":"1.0.0","code":111,"msg":"chaos: no wires today"}'`)
}

func newPoser(dir, name, program, verb, sorry string) (*Poser, error) {
	for _, path := range []string{dir, program} {
		if strings.ContainsAny(path, " '\"$\\\n") {
			return nil, fmt.Errorf("pose as %s: a path that a shell would not leave alone", path)
		}
	}
	p := &Poser{Path: filepath.Join(dir, name), control: filepath.Join(dir, name+".mode")}
	if err := p.Well(); err != nil {
		return nil, err
	}
	return p, os.WriteFile(p.Path, fmt.Appendf(nil, script, program, p.control, verb, sorry), 0o755)
}

// Set makes it misbehave at a verb from its next start on; seconds are for Hang, Slow and Late.
func (p *Poser) Set(verb, how string, seconds int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	// by rename: a start never reads half a line
	next := p.control + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%s:%s:%d\n", verb, how, seconds), 0o644); err != nil {
		return err
	}
	return os.Rename(next, p.control)
}

// Well makes it do what the real one does.
func (p *Poser) Well() error { return p.Set("-", "-", 0) }

// Pose puts the posing plugin into the bridge's place in a network configuration, which it leaves as it is otherwise.
func Pose(conflist string) error {
	text, err := os.ReadFile(conflist)
	if err != nil {
		return err
	}
	posed := strings.Replace(string(text), `"type": "bridge"`, `"type": "`+PluginName+`"`, 1)
	if posed == string(text) {
		return errors.New("pose as a plugin: the network has no bridge")
	}
	return os.WriteFile(conflist, []byte(posed), 0o644)
}
