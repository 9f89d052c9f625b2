package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

func pack(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

func unpack(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return io.ReadAll(z)
}

// samples are contents that use all parts of the format: literals of few and
// many kinds, long and short matches, near and far ones, nothing at all.
func samples() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := map[string][]byte{"empty": nil, "one": {7}, "zeros": make([]byte, 1<<20)}
	noise := make([]byte, 300<<10)
	hex := make([]byte, 700<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for i := range hex {
		hex[i] = "0123456789abcdef"[r.IntN(16)]
	}
	out["noise"], out["hex"] = noise, hex
	var text []byte
	for len(text) < 1<<20 {
		text = fmt.Appendf(text, "%d words of a %x text that repeats\n", r.IntN(1000), r.IntN(20))
	}
	out["text"] = text
	var mixed []byte
	for len(mixed) < 2<<20 {
		switch r.IntN(5) {
		case 0:
			mixed = append(mixed, noise[r.IntN(1000):][:r.IntN(2000)]...)
		case 1:
			mixed = append(mixed, bytes.Repeat([]byte{byte(r.Uint32()), 1, 2, 3, 4, 5, 6, 7}[:1+r.IntN(8)], r.IntN(300))...)
		case 2:
			mixed = append(mixed, text[r.IntN(1000):][:r.IntN(5000)]...)
		default:
			if n := len(mixed); n > 0 {
				at := n - 1 - r.IntN(min(n, 40<<10))
				mixed = append(mixed, mixed[at:min(n, at+r.IntN(600))]...)
			}
		}
	}
	out["mixed"] = mixed
	skew := make([]byte, 400<<10) // long codes: the second part of the table
	for i := range skew {
		b := 0
		for b < 255 && r.IntN(2) == 0 {
			b++
		}
		if r.IntN(30) == 0 {
			b = r.IntN(256)
		}
		skew[i] = byte(b)
	}
	out["skew"] = skew
	return out
}

func TestWhatWasPackedComesOut(t *testing.T) {
	for name, data := range samples() {
		if testing.Short() {
			data = data[:min(len(data), 200<<10)] // more than the window, and than the buffers
		}
		for _, level := range []int{0, 1, 6, 9, gzip.HuffmanOnly} {
			z := pack(t, data, level)
			for how, r := range map[string]io.Reader{"whole": bytes.NewReader(z), "halves": iotest.HalfReader(bytes.NewReader(z)), "data with error": iotest.DataErrReader(bytes.NewReader(z))} {
				got, err := unpack(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s at level %d, %s: %d bytes of %d, %v", name, level, how, len(got), len(data), err)
				}
			}
		}
		var b bytes.Buffer // zlib-like block splitting of another author
		z, _ := stdgzip.NewWriterLevel(&b, 6)
		_, _ = z.Write(data)
		_ = z.Close()
		if got, err := unpack(iotest.OneByteReader(bytes.NewReader(b.Bytes()))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s byte by byte: %d bytes of %d, %v", name, len(got), len(data), err)
		}
	}
}

func TestMembersAndHeaders(t *testing.T) {
	var b bytes.Buffer
	z := stdgzip.NewWriter(&b)
	z.Name, z.Comment, z.Extra = "name", "comment", []byte("extra")
	_, _ = z.Write([]byte("one "))
	_ = z.Close()
	b.Write(pack(t, nil, 6))
	b.Write(pack(t, []byte("two"), 6))
	got, err := unpack(iotest.OneByteReader(bytes.NewReader(b.Bytes())))
	if err != nil || string(got) != "one two" {
		t.Errorf("%q, %v", got, err)
	}
	// A match must not reach back into the member before: it would be another content than other readers'.
	first := pack(t, bytes.Repeat([]byte("abcd"), 100), 6)
	second := pack(t, bytes.Repeat([]byte("x"), 100), 6)
	if _, err := unpack(bytes.NewReader(append(first, second[:len(second)-1]...))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a member cut short: %v", err)
	}
	if _, err := unpack(bytes.NewReader(append(first, "garbage after it"...))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("garbage behind a member: %v", err)
	}
}

func TestEveryCutIsAnError(t *testing.T) {
	data := samples()["mixed"][:1500]
	for _, level := range []int{0, 6} {
		z := pack(t, data, level)
		for n := range z {
			got, err := unpack(bytes.NewReader(z[:n]))
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) || !bytes.HasPrefix(data, got) {
				t.Fatalf("the first %d bytes of %d: %d bytes out, %v", n, len(z), len(got), err)
			}
		}
	}
	broken := errors.New("broken")
	z := pack(t, data, 6)
	if _, err := unpack(io.MultiReader(bytes.NewReader(z[:len(z)/2]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("the source's own error is lost: %v", err)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	data := samples()["mixed"][:700]
	z := pack(t, data, 6)
	for i := 10; i < len(z); i++ {
		for bit := range 8 {
			bad := bytes.Clone(z)
			bad[i] ^= 1 << bit
			// Some bits mean nothing: those between the last block and the checksum.
			if got, err := unpack(bytes.NewReader(bad)); err == nil && !bytes.Equal(got, data) {
				t.Fatalf("bit %d of byte %d: %d bytes and no error", bit, i, len(got))
			}
		}
	}
}

// FuzzAgainstTheLibrary: what this package makes of any input is what the standard library makes of it.
func FuzzAgainstTheLibrary(f *testing.F) {
	for _, data := range samples() {
		for _, level := range []int{0, 1, 9} {
			f.Add(pack(f, data[:min(len(data), 2000)], level))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 8 << 20
		var want []byte
		std, wantErr := stdgzip.NewReader(bytes.NewReader(in))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(std, limit))
		}
		var got []byte
		z, err := NewReader(bytes.NewReader(in))
		if err == nil {
			got, err = io.ReadAll(io.LimitReader(z, limit))
			z.Close()
		}
		if wantErr == nil && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%d bytes and %v, the library says %d bytes", len(got), err, len(want))
		}
		// Headers are read with less care here: their own checksums and the length of their texts mean nothing to a layer.
		if wantErr != nil && err == nil && !errors.Is(wantErr, stdgzip.ErrHeader) {
			t.Fatalf("%d bytes, the library says %v", len(got), wantErr)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	for name, data := range samples() {
		z := pack(b, data, 6)
		for who, open := range map[string]func() (io.ReadCloser, error){
			"here": func() (io.ReadCloser, error) { return NewReader(bytes.NewReader(z)) },
			"lib":  func() (io.ReadCloser, error) { return gzip.NewReader(bytes.NewReader(z)) },
		} {
			b.Run(name+"/"+who, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				buf := make([]byte, 256<<10)
				for b.Loop() {
					r, err := open()
					if err != nil {
						b.Fatal(err)
					}
					for err == nil {
						_, err = r.Read(buf)
					}
					r.Close()
				}
			})
		}
	}
}
