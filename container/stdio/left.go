package stdio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Left answers the execs of which dir holds pipes. Asked before there are execs of this run, these are those that an earlier
// run has left.
func Left(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for execs: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// EndLeft ends an exec of task id that an earlier run has left, or that [ExecRequest].Left was told of, with its pipes in
// dir: it is killed, the shim forgets it, and its pipes go, in the background and bounded as with an exec whose caller has
// left. left is told if that did not work either; it may be nil.
func EndLeft(shim Execer, id, execID, dir string, left func(execID string)) {
	x := &execution{shim: shim, id: id, execID: execID, req: &ExecRequest{Left: left}, pipes: &pipes{dir: filepath.Join(dir, execID)}}
	// What is in the pipes, and what still comes, must not block the shim.
	x.pipes.out, x.pipes.err = leftPipe(x.pipes.dir, "stdout"), leftPipe(x.pipes.dir, "stderr")
	for _, f := range []*os.File{x.pipes.out, x.pipes.err} {
		if f == nil {
			continue
		}
		o := newOutput(f, nil)
		x.outputs = append(x.outputs, o)
		go o.discard()
	}
	x.finish(context.Background(), true)
}

// leftPipe opens a pipe of an earlier run; nil if there is none.
func leftPipe(dir, name string) *os.File {
	path := filepath.Join(dir, name)
	st, err := os.Lstat(path)
	if err != nil || st.Mode().Type() != fs.ModeNamedPipe {
		return nil
	}
	f, err := openReader(path)
	if err != nil {
		return nil
	}
	return f
}
