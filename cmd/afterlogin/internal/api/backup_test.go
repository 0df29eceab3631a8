package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestBackup(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.api = New(f.a, Options{})
	if a := f.do("GET", "/v1/backup", f.key, ""); a.status != http.StatusNotFound || a.kind() != "no-backup" {
		t.Errorf("without a way to: %d %s", a.status, a.body)
	}
	trouble := errors.New("the disk is on fire")
	begun, goOn := make(chan struct{}), make(chan struct{})
	var write func(ctx context.Context, w io.Writer) error
	f.api = New(f.a, Options{Backup: func(ctx context.Context, w io.Writer) error { return write(ctx, w) }})
	write = func(ctx context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "all of it")
		return err
	}
	if a := f.do("GET", "/v1/backup", f.key, ""); a.status != http.StatusOK || a.body != "all of it" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a := f.do("GET", "/v1/backup", f.apiKey(SessionsRead, Validate), ""); a.status != http.StatusForbidden {
		t.Errorf("without the scope: %d", a.status)
	}
	if a := f.do("GET", "/v1/backup?since=1", f.key, ""); a.status != http.StatusUnprocessableEntity {
		t.Errorf("with a parameter: %d %s", a.status, a.body)
	}
	write = func(context.Context, io.Writer) error { return trouble }
	if a := f.do("GET", "/v1/backup", f.key, ""); a.status != http.StatusInternalServerError && a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "fire") {
		t.Errorf("trouble before the first byte: %d %s", a.status, a.body)
	}

	// Trouble behind the first byte breaks the answer off, a second backup at the same time is too many, and a server that
	// stops does not wait.
	write = func(ctx context.Context, w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
			return err
		}
		close(begun)
		select {
		case <-goOn:
			return trouble
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	server := httptest.NewServer(f.api)
	defer server.Close()
	get := func() (*http.Response, error) {
		req, err := http.NewRequest(http.MethodGet, server.URL+"/v1/backup", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", f.key)
		return server.Client().Do(req)
	}
	for _, end := range []func(){func() { close(goOn) }, f.api.EndStreams} {
		resp, err := get()
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		if a := f.do("GET", "/v1/backup", f.key, ""); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
			t.Errorf("a second one: %d %s", a.status, a.body)
		}
		end()
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a backup that broke off looks whole: %d bytes", len(b))
		}
		resp.Body.Close()
		begun, goOn = make(chan struct{}), make(chan struct{})
	}
}
