package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"

	"github.com/crid-project/crid/server/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, d admin.Deps) (do func(method, path, body string) (int, string, error)) {
	t.Helper()
	d.Log = slog.New(slog.DiscardHandler)
	s := httptest.NewServer(admin.Handler(d))
	t.Cleanup(s.Close)
	return func(method, path, body string) (int, string, error) {
		req, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
}

func TestStateCheckAndImages(t *testing.T) {
	var broken []admin.Finding
	do := serve(t, admin.Deps{
		State:  func() any { return map[string]int{"pods": 3} },
		Check:  func(context.Context) ([]admin.Finding, error) { return broken, nil },
		Images: func() []admin.Image { return nil },
	})
	if code, body, _ := do("GET", "/state", ""); code != 200 || !strings.Contains(body, `"pods": 3`) {
		t.Errorf("%d %s", code, body)
	}
	for _, path := range []string{"/check", "/images"} {
		if code, body, _ := do("GET", path, ""); code != 200 || strings.TrimSpace(body) != "[]" {
			t.Errorf("%s with nothing to say: %d %s", path, code, body)
		}
	}
	broken = []admin.Finding{{Name: "shim without record", Severity: "fail", Message: "pid 9", Cure: "restart crid"}}
	code, body, _ := do("GET", "/check", "")
	var got []admin.Finding
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || len(got) != 1 || got[0] != broken[0] {
		t.Errorf("%d %s", code, body)
	}
	if code, body, _ := do("GET", "/debug/pprof/goroutine?debug=1", ""); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("%d %.80s", code, body)
	}
	if code, _, _ := do("POST", "/images/import", "x"); code != http.StatusNotImplemented {
		t.Errorf("what is not offered answers %d", code)
	}
	if code, _, _ := do("GET", "/nothing", ""); code != http.StatusNotFound {
		t.Errorf("what is not there answers %d", code)
	}
}

func TestAnImportTellsAsItGoes(t *testing.T) {
	fail := error(nil)
	do := serve(t, admin.Deps{Import: func(_ context.Context, r io.Reader, progress func(string)) ([]admin.Image, error) {
		b, _ := io.ReadAll(r)
		progress(fmt.Sprint("read ", len(b)))
		return []admin.Image{{ID: "sha256:1", Tags: []string{"a:1"}}}, fail
	}})
	if code, body, _ := do("POST", "/images/import", "12345"); code != 200 || body != `{"progress":"read 5"}`+"\n"+`{"image":{"id":"sha256:1","tags":["a:1"],"digests":null,"size":0,"pinned":false}}`+"\n" {
		t.Errorf("%d %s", code, body)
	}
	fail = errors.New("layer 3 is cut short")
	if _, body, _ := do("POST", "/images/import", "1"); !strings.HasSuffix(body, `{"error":"layer 3 is cut short"}`+"\n") {
		t.Errorf("got %s", body)
	}
}

func TestAnExportThatFailsIsNeverTakenForWhole(t *testing.T) {
	early, late := fmt.Errorf("image b: %w", errdefs.ErrNotFound), error(nil)
	do := serve(t, admin.Deps{Export: func(_ context.Context, w io.Writer, refs []string) error {
		if refs[0] == "b" {
			return early
		}
		_, _ = io.WriteString(w, strings.Repeat("tar", 10_000))
		return late
	}})
	if code, body, err := do("GET", "/images/export?ref=a&ref=c", ""); code != 200 || err != nil || len(body) != 30_000 {
		t.Errorf("%d %d bytes, %v", code, len(body), err)
	}
	if code, body, _ := do("GET", "/images/export?ref=b", ""); code != http.StatusNotFound || !strings.Contains(body, "image b") {
		t.Errorf("%d %s", code, body)
	}
	if code, _, _ := do("GET", "/images/export", ""); code != http.StatusBadRequest {
		t.Errorf("without a reference: %d", code)
	}
	late = errors.New("disk error")
	if _, _, err := do("GET", "/images/export?ref=a", ""); err == nil {
		t.Error("half an archive looked whole")
	}
}

func TestTheLogLevelCanBeChanged(t *testing.T) {
	level := &slog.LevelVar{}
	do := serve(t, admin.Deps{Level: level})
	if _, body, _ := do("GET", "/log/level", ""); !strings.Contains(body, `"info"`) {
		t.Errorf("got %s", body)
	}
	if code, body, _ := do("PUT", "/log/level?level=debug", ""); code != 200 || level.Level() != slog.LevelDebug || !strings.Contains(body, `"debug"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, _, _ := do("PUT", "/log/level?level=loud", ""); code != http.StatusBadRequest || level.Level() != slog.LevelDebug {
		t.Errorf("%d, level %v", code, level.Level())
	}
}
