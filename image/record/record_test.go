package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestTornRecordsAreNoticed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.json")
	want := map[string]string{"a": "b"}
	if err := Write(path, want, true); err != nil {
		t.Fatal(err)
	}
	whole, _ := os.ReadFile(path)
	var got map[string]string
	if err := Read(path, &got); err != nil || got["a"] != "b" {
		t.Fatal(got, err)
	}
	for n := range whole {
		_ = os.WriteFile(path, whole[:n], 0o600)
		if err := Read(path, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		flipped := append([]byte(nil), whole...)
		flipped[n] ^= 4
		_ = os.WriteFile(path, flipped, 0o600)
		if err := Read(path, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit flipped in byte %d: %v", n, err)
		}
	}
	_ = os.Remove(path)
	if err := Read(path, &got); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	_ = os.Symlink("/etc/passwd", path)
	if err := Read(path, &got); !errors.Is(err, ErrCorrupt) {
		t.Errorf("through a link: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("0000000000000000\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "r")
		_ = os.WriteFile(path, data, 0o600)
		var v any
		_ = Read(path, &v)
	})
}
