package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recover puts into the log what an earlier process had read and not written.
// Before anything else goes there: a write that was cut short can be completed
// at the end of the file only. What is left then are beginnings of lines, which
// wait for their streams to be followed.
//
// It can be cut short itself, at any moment: it takes the same steps as those it
// makes up for.
func (l *Log) recover() {
	var others []*buffer
	for _, b := range l.opts.Buffers.claim(l.opts.Owner) {
		if _, _, doing := unpack(b.state.Load()); doing >= writing {
			l.recoverFrom(b) // the two streams take turns: there is one of these at most
		} else {
			others = append(others, b)
		}
	}
	for _, b := range others {
		l.recoverFrom(b)
	}
}

func (l *Log) recoverFrom(b *buffer) {
	s := b.splitter()
	if !b.settleRead() {
		b.home.log.Warn("a read of output was cut short; what it brought is lost", "container", l.opts.Owner, "stream", s.stream)
	}
	o := batches.Get().(*batch) //nolint:forcetypeassert // the pool holds nothing else
	defer batches.Put(o)
	pos, end, doing := unpack(b.state.Load())
	o.begin(s.stream, time.Unix(0, b.when))
	switch doing {
	case writing:
		l.complete(o, b, pos+s.split(o, b.data[pos:end], 0))
	case writingRest:
		s.rest(o, b.data[pos:end])
		l.complete(o, b, end)
	}
	l.put(s, b, o, 0)
	if len(b.text()) > 0 && l.recovered[s.stream] == nil && *s == l.splitter(s.stream) && b.home.sizes == l.sizes && b.class >= 0 {
		l.recovered[s.stream] = b
		return
	}
	l.putRest(s, b, o) // lines are split in another way now
	b.release()
}

// complete appends a batch, but for as much of it as was appended before the
// process was killed: to the file that it was written to, which may have been
// moved away meanwhile. If that is gone or does not end as it should, somebody
// else has been at it, and the batch is written as if it were new: rather twice
// than not at all. Nothing that is in a file is ever changed.
func (l *Log) complete(o *batch, b *buffer, next int) {
	l.writing <- struct{}{}
	f, made := l.file, false
	if unix.Fstat(l.fd, &l.st) != nil || l.st.Dev != b.dev || l.st.Ino != b.ino {
		if f = l.rotated(b.dev, b.ino); f != nil {
			defer f.Close()
		}
	}
	if f != nil {
		var n int
		if n, made = written(f, b.at, o.out); made && n < len(o.out) {
			l.finish(f, o, n)
			made = true
		}
	}
	if made {
		if f == l.file {
			l.torn = endsTorn(f)
		}
		b.wrote(next)
	}
	l.unlock()
	if !made {
		l.append(o, b, next)
	}
}

// written answers how much of text is at the end of a file that was at bytes long
// before text was appended. False: something else is there.
func written(f *os.File, at int64, text []byte) (int, bool) {
	fi, err := f.Stat()
	if err != nil || fi.Size() < at {
		return 0, false
	}
	n := min(fi.Size()-at, int64(len(text)))
	there := make([]byte, n)
	if _, err := f.ReadAt(there, at); err != nil || !bytes.Equal(there, text[:n]) {
		return 0, false
	}
	return int(n), true
}

// rotated opens the log that was moved away, as kubelets do it: to a name that
// begins with its own.
func (l *Log) rotated(dev, ino uint64) *os.File {
	dir, base := filepath.Split(l.path)
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(1024)
	for _, name := range names {
		if !strings.HasPrefix(name, base+".") {
			continue
		}
		var st unix.Stat_t
		path := filepath.Join(dir, name)
		if unix.Lstat(path, &st) != nil || st.Dev != dev || st.Ino != ino {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil
		}
		f := os.NewFile(uintptr(fd), path)
		if unix.Fstat(fd, &st) == nil && st.Dev == dev && st.Ino == ino && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return f
		}
		_ = f.Close()
		return nil
	}
	return nil
}
