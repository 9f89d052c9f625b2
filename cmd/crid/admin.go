package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/crid-project/crid/config"
)

// errNoDaemon says that no crid listens on the admin socket.
var errNoDaemon = errors.New("crid is not running")

// daemonClient speaks HTTP to the running daemon:
//
//	GET  /check                 JSON list of {name, severity, message, cure}
//	GET  /images                JSON list of Image
//	POST /images/import         body: the archive; answer: one JSON object a
//	                            line: {"progress": TEXT}, {"image": Image} or
//	                            {"error": TEXT}
//	GET  /images/export?ref=…   the archive
type daemonClient struct {
	socket string
	http   *http.Client
}

// newDaemonClient is a client to the daemon of a configuration; nothing is dialled yet.
func newDaemonClient(c *config.Config) *daemonClient {
	socket := c.AdminSocket()
	return &daemonClient{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			return d.DialContext(ctx, "unix", socket)
		},
		ResponseHeaderTimeout: 10 * time.Minute, // an import answers when it has read it all
		DisableKeepAlives:     true,
	}}}
}

// do sends one request and answers the body of a success.
func (a *daemonClient) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://crid"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, errNoDaemon
		}
		return nil, fmt.Errorf("ask crid on %s: %w", a.socket, err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		var problem struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(text, &problem) == nil && problem.Error != "" {
			return nil, errors.New(problem.Error)
		}
		return nil, fmt.Errorf("crid answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}

// getJSON fetches and decodes a bounded answer within 30 seconds.
func (a *daemonClient) getJSON(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := a.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, 64<<20)).Decode(into); err != nil {
		return fmt.Errorf("understand crid's answer to %s: %w", path, err)
	}
	return nil
}

// Running tells whether a daemon answers at all.
func (a *daemonClient) Running(ctx context.Context) bool {
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "unix", a.socket)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// List is GET /images.
func (a *daemonClient) List(ctx context.Context) (list []Image, err error) {
	err = a.getJSON(ctx, "/images", &list)
	return list, err
}

// Import is POST /images/import.
func (a *daemonClient) Import(ctx context.Context, archive io.Reader, progress func(string)) ([]Image, error) {
	body, err := a.do(ctx, http.MethodPost, "/images/import", io.NopCloser(archive))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var out []Image
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			Progress string `json:"progress"`
			Image    *Image `json:"image"`
			Error    string `json:"error"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return out, fmt.Errorf("understand crid's answer to the import: %w", err)
		}
		switch {
		case line.Error != "":
			return out, errors.New(line.Error)
		case line.Image != nil:
			out = append(out, *line.Image)
		case line.Progress != "":
			progress(line.Progress)
		}
	}
	if err := lines.Err(); err != nil {
		return out, fmt.Errorf("crid broke off the import: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("import images: crid ended without naming any: look into its log")
	}
	return out, nil
}

// Export is GET /images/export. The archive is complete only if no error came:
// an interrupted answer is one (chunked encoding tells).
func (a *daemonClient) Export(ctx context.Context, w io.Writer, refs []string) error {
	body, err := a.do(ctx, http.MethodGet, "/images/export?"+url.Values{"ref": refs}.Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); err != nil {
		return fmt.Errorf("crid broke off the export: %w", err)
	}
	return nil
}

// Close has nothing to end.
func (a *daemonClient) Close() error { return nil }
