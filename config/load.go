package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// largest bounds one configuration file.
const largest = 1 << 20

// Overrides are the flags that win over every file; empty ones do not.
type Overrides struct {
	Root, State, Address, LogLevel string
}

// Load reads the file at path ("" is DefaultPath, which may be missing), then
// the drop-ins conf.d/*.toml beside it in lexical order, each changing only
// the keys it names, then applies the overrides, fills in what is left and
// checks the result. The error names file, line and key, and what to do.
func Load(path string, o Overrides) (*Config, error) {
	optional := path == ""
	if optional {
		path = DefaultPath
	}
	l := &layers{c: Default()}
	text, err := readFile(path)
	switch {
	case err == nil:
		if err := l.merge(path, text, true); err != nil {
			return nil, err
		}
	case !optional || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read configuration: %w (\"crid config default\" prints one to start from)", err)
	}
	dropins, err := dropIns(path)
	if err != nil {
		return nil, err
	}
	for _, name := range dropins {
		text, err := readFile(name)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		if err := l.merge(name, text, false); err != nil {
			return nil, err
		}
	}
	if !l.handlers {
		l.c.offer()
	}
	return l.finish(o)
}

// Parse reads one configuration text as Load does a file, without drop-ins.
func Parse(name string, text []byte, o Overrides) (*Config, error) {
	l := &layers{c: Default()}
	if err := l.merge(name, text, true); err != nil {
		return nil, err
	}
	return l.finish(o)
}

// layers is a configuration while files are laid over it.
type layers struct {
	c        *Config
	handlers bool // a file has named a runtime handler
}

func (l *layers) finish(o Overrides) (*Config, error) {
	l.c.override(o)
	l.c.derive()
	if err := l.c.Validate(); err != nil {
		return nil, err
	}
	return l.c, nil
}

// dropIns lists conf.d/*.toml beside the file, in lexical order.
func dropIns(path string) ([]string, error) {
	dir := filepath.Join(filepath.Dir(path), "conf.d")
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// readFile reads a bounded regular file.
func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path) // first, so that a fifo does not block the open
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, largest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > largest {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, largest)
	}
	return b, nil
}

// merge lays one file over what is there. The main file must say its version.
func (l *layers) merge(name string, text []byte, main bool) error {
	var head struct {
		Version  any            `toml:"version"`
		Plugins  map[string]any `toml:"plugins"`
		Runtimes map[string]any `toml:"runtimes"`
	}
	if err := toml.Unmarshal(text, &head); err != nil {
		return syntaxError(name, err)
	}
	switch v, isInt := head.Version.(int64); {
	case head.Plugins != nil:
		return fmt.Errorf("%s: this is a containerd configuration ([plugins]): crid's keys are other ones, see \"crid config default\"", name)
	case head.Version == nil && !main:
	case head.Version == nil:
		return fmt.Errorf("%s: version is missing: write \"version = %d\" on its first line", name, Version)
	case !isInt || v != Version:
		return fmt.Errorf("%s: version = %v is not known to this crid: write \"version = %d\"", name, head.Version, Version)
	}
	dec := toml.NewDecoder(strings.NewReader(string(text))).DisallowUnknownFields()
	if err := dec.Decode(l.c); err != nil {
		return decodeError(name, err)
	}
	l.handlers = l.handlers || len(head.Runtimes) > 0
	return nil
}

func (c *Config) override(o Overrides) {
	for _, x := range []struct {
		to   *string
		from string
	}{{&c.Root, o.Root}, {&c.State, o.State}, {&c.Address, o.Address}, {&c.Log.Level, o.LogLevel}} {
		if x.from != "" {
			*x.to = x.from
		}
	}
}

// syntaxError says where a file stops being TOML.
func syntaxError(name string, err error) error {
	var de *toml.DecodeError
	if errors.As(err, &de) {
		row, col := de.Position()
		return fmt.Errorf("%s:%d:%d: %s: correct that line (strings need quotes)", name, row, col, strings.TrimPrefix(de.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// decodeError names unknown keys, each with the nearest known one.
func decodeError(name string, err error) error {
	var strict *toml.StrictMissingError
	if !errors.As(err, &strict) {
		var de *toml.DecodeError
		if errors.As(err, &de) {
			row, col := de.Position()
			return fmt.Errorf("%s:%d:%d: %s: %s", name, row, col, strings.Join(de.Key(), "."), strings.TrimPrefix(de.Error(), "toml: "))
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	var all []error
	for _, e := range strict.Errors {
		key := strings.Join(e.Key(), ".")
		row, _ := e.Position()
		all = append(all, fmt.Errorf("%s:%d: unknown key %q: %s", name, row, key, hint(key)))
	}
	return errors.Join(all...)
}

// hint names the nearest known key, or where to find them all.
func hint(key string) string {
	if near := nearest(key, knownNames(key)); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "\"crid config default\" lists the known ones"
}

// knownNames are all keys, with the handler's name that key has put in for "*".
func knownNames(key string) []string {
	parts := strings.Split(key, ".")
	var names []string
	for _, k := range Keys() {
		n := k.Name
		if strings.HasPrefix(n, "runtimes.*.") {
			handler := "NAME"
			if len(parts) > 2 {
				handler = parts[1]
			}
			n = "runtimes." + handler + strings.TrimPrefix(n, "runtimes.*")
		}
		names = append(names, n)
		for i, ch := range n { // the tables as well
			if ch == '.' && !slices.Contains(names, n[:i]) {
				names = append(names, n[:i])
			}
		}
	}
	return names
}

// nearest picks the candidate with the least edit distance: over the whole
// name, or over the last part alone (right key, wrong table). "" if all are far.
func nearest(key string, candidates []string) string {
	best, least := "", 1<<30
	for _, c := range candidates {
		d := distance(key, c)
		if last(key) == last(c) {
			d = min(d, 1)
		} else {
			d = min(d, distance(last(key), last(c))+2)
		}
		if d < least {
			best, least = c, d
		}
	}
	if least > max(3, len(last(key))/2) {
		return ""
	}
	return best
}

func last(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// distance is the number of single-letter edits and swaps of neighbours between
// a and b.
func distance(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			cost := row[j]
			if a[i] != b[j] {
				cost++
			}
			next[j+1] = min(cost, next[j]+1, row[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
