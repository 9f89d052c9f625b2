package kit

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// epoch is the time of every file and every image.
var epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// layer is a v1.Layer in memory.
type layer struct {
	blob, raw      []byte
	digest, diffID v1.Hash
	media          types.MediaType
}

func (l *layer) Digest() (v1.Hash, error)            { return l.digest, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *layer) Size() (int64, error)                { return int64(len(l.blob)), nil }
func (l *layer) MediaType() (types.MediaType, error) { return l.media, nil }
func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.blob)), nil
}
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.raw)), nil
}

// newLayer writes one layer. The media type chooses the compression too: gzip, zstd or none.
func newLayer(media types.MediaType, fill func(*tree)) (*layer, error) {
	var raw bytes.Buffer
	t := &tree{w: tar.NewWriter(&raw), made: map[string]bool{}}
	fill(t)
	if t.err == nil {
		t.err = t.w.Close()
	}
	if t.err != nil {
		return nil, fmt.Errorf("write layer: %w", t.err)
	}
	blob, err := compress(media, raw.Bytes())
	if err != nil {
		return nil, fmt.Errorf("compress layer: %w", err)
	}
	return &layer{blob: blob, raw: raw.Bytes(), digest: sum(blob), diffID: sum(raw.Bytes()), media: media}, nil
}

func compress(media types.MediaType, raw []byte) ([]byte, error) {
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch media {
	case types.OCIUncompressedLayer, types.DockerUncompressedLayer:
		return raw, nil
	case types.OCILayerZStd:
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	default:
		w, err = gzip.NewWriterLevel(&out, gzip.DefaultCompression)
	}
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func sum(b []byte) v1.Hash {
	digest := sha256.Sum256(b)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(digest[:])}
}

// tree writes the entries of a layer, each with the same time and, unless said otherwise, root as owner. Folders above an entry
// are made as needed. The first error stays in err and makes all that follows do nothing.
type tree struct {
	w    *tar.Writer
	made map[string]bool
	err  error
}

func (t *tree) add(h tar.Header, data []byte) {
	if t.err != nil {
		return
	}
	h.Name = strings.TrimPrefix(h.Name, "/")
	t.parents(h.Name)
	h.ModTime, h.Size = epoch, int64(len(data))
	if h.Typeflag == tar.TypeDir {
		t.made[strings.TrimSuffix(h.Name, "/")] = true
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
	}
	if t.err == nil {
		t.err = t.w.WriteHeader(&h)
	}
	if t.err == nil && len(data) > 0 {
		_, t.err = t.w.Write(data)
	}
}

func (t *tree) parents(name string) {
	if dir := path.Dir(strings.TrimSuffix(name, "/")); dir != "." && !t.made[dir] {
		t.dir(dir, 0o755)
	}
}

func (t *tree) dir(name string, mode int64) { t.dirOwned(name, mode, 0, 0) }

func (t *tree) dirOwned(name string, mode int64, uid, gid int) {
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, Uid: uid, Gid: gid}, nil)
}

func (t *tree) text(name, content string) { t.file(name, 0o644, []byte(content)) }

func (t *tree) file(name string, mode int64, content []byte) {
	t.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

// program adds an executable of the host's.
func (t *tree) program(name, host string, mode int64) {
	content, err := os.ReadFile(host)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.file(name, mode, content)
}

func (t *tree) symlink(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (t *tree) hardlink(name, target string) {
	t.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o755}, nil)
}
