package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

const (
	defaultServer  = "http://127.0.0.1:7070"
	defaultKeyFile = "./afterlogin-data/admin.key"
	maxAnswer      = 16 << 20
)

// remote is the server that a command talks to.
type remote struct {
	p       *program
	server  string
	keyFile string
	base    *url.URL
	key     string
	http    *http.Client
}

// remoteFlags adds the flags that name the server and the key.
func (p *program) remoteFlags(c *cobra.Command) *remote {
	r := &remote{p: p}
	c.Flags().StringVar(&r.server, "server", or(p.lookup("AFTERLOGIN_SERVER"), defaultServer), "address of the server (environment AFTERLOGIN_SERVER)")
	c.Flags().StringVar(&r.keyFile, "key-file", "", "file with the API key (environment AFTERLOGIN_KEY_FILE, or AFTERLOGIN_KEY with the key itself; default "+defaultKeyFile+")")
	c.MarkFlagFilename("key-file")
	return r
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// open checks the address and reads the key.
func (r *remote) open() error {
	u, err := url.Parse(r.server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return usage("write it as "+defaultServer, "%q is not the address of a server", r.server)
	}
	if u.Scheme == "http" && !config.LoopbackHost(u.Hostname()) {
		return usage("write https://"+u.Host, "refusing to send an API key to %s without TLS", u.Host)
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	r.base = u
	r.http = &http.Client{
		Timeout: 30 * time.Second,
		// A redirect would take the key to wherever it says.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return r.readKey()
}

func (r *remote) readKey() error {
	file := r.keyFile
	if file == "" {
		if r.key = strings.TrimSpace(r.p.lookup("AFTERLOGIN_KEY")); r.key != "" {
			return nil
		}
		file = or(r.p.lookup("AFTERLOGIN_KEY_FILE"), defaultKeyFile)
	}
	f, err := os.Open(file)
	if err != nil {
		code := exitError
		if errors.Is(err, fs.ErrNotExist) {
			code = exitDenied
		}
		return fail(code, "name the file with --key-file, or the key in AFTERLOGIN_KEY; \"afterlogin serve\" makes one in <data>/admin.key", "no API key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return fail(exitError, "", "read the API key: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(r.p.Err, "afterlogin: warning: %s can be read by others: chmod 600 %[1]s\n", file)
	}
	if r.key = strings.TrimSpace(string(b)); r.key == "" || strings.ContainsAny(r.key, " \t\r\n") {
		return fail(exitDenied, "it should hold the key alone, on one line", "%s does not hold an API key", file)
	}
	return nil
}

// call makes a request and decodes its answer into out, if that is not nil. The path is escaped already.
func (r *remote) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	if r.base == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	target := r.base.String() + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fail(exitUnreachable, "", "the answer of %s broke off: %w", r.server, err)
	}
	if resp.StatusCode >= 300 {
		return r.refusal(resp, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fail(exitError, "is that an afterlogin server?", "the answer of %s cannot be read", r.server)
	}
	return nil
}

// do sends the request with the key. The error is for people.
func (r *remote) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+r.key)
	resp, err := r.http.Do(req)
	if err == nil {
		return resp, nil
	}
	if req.Context().Err() != nil {
		return nil, context.Canceled
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return nil, fail(exitUnreachable, "is it running? Start it with \"afterlogin serve\", or name another with --server", "no answer from %s: %w", r.server, err)
}

// download copies an answer of any size, which may take as long as it does.
func (r *remote) download(ctx context.Context, path string, to io.Writer) error {
	if r.base == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	r.http.Timeout = 0
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base.String()+path, nil)
	if err != nil {
		return err
	}
	resp, err := r.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return err
		}
		return r.refusal(resp, answer)
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fail(exitUnreachable, "", "the answer of %s broke off: %w", r.server, err)
	}
	return nil
}

// refusal turns an answer that is not a success into an error.
func (r *remote) refusal(resp *http.Response, answer []byte) error {
	err := r.refused(resp, answer)
	var f *failure
	if errors.As(err, &f) { // of the server, or of a proxy whose server is being started
		f.again = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500
	}
	return err
}

func (r *remote) refused(resp *http.Response, answer []byte) error {
	var p api.Problem
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media != "application/problem+json" || json.Unmarshal(answer, &p) != nil {
		return fail(exitError, "is that an afterlogin server?", "%s answers %s", r.server, resp.Status)
	}
	msg := printable(p.Detail)
	if p.RequestID != "" && resp.StatusCode >= 500 {
		msg += " (request " + printable(p.RequestID) + ")"
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return fail(exitDenied, "name the key with --key-file, AFTERLOGIN_KEY_FILE or AFTERLOGIN_KEY", "%s", msg)
	case resp.StatusCode == http.StatusForbidden:
		return fail(exitDenied, "", "%s", msg)
	case resp.StatusCode == http.StatusServiceUnavailable:
		return fail(exitUnreachable, "", "%s", msg)
	}
	return fail(exitError, "", "%s", msg)
}

// segment escapes a text as one segment of a path. A subject may be called "..", too.
func segment(s string) string {
	return strings.ReplaceAll(url.PathEscape(s), ".", "%2E")
}

// printable replaces what a terminal might take for a command: a subject or a user agent can hold anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7F && r < 0xA0 || r >= 0x200B && r <= 0x200F || r >= 0x2028 && r <= 0x202E || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

// endEach deletes what the ids name below the path, one after the other, and says what became of each. It begins with none
// if one of them looks like a token.
func (r *remote) endEach(ctx context.Context, ids []string, path string, query url.Values, done string) error {
	var bad []error
	for _, id := range ids {
		bad = append(bad, notAToken(id))
	}
	if err := errors.Join(bad...); err != nil {
		return err
	}
	for _, id := range ids {
		if err := r.call(ctx, http.MethodDelete, path+segment(id), query, nil, nil); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(r.p.Out, done, printable(id)); err != nil {
			return err
		}
	}
	return nil
}
