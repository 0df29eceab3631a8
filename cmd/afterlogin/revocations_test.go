package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// TestInterruptedRevocation: Ctrl-C ends the command and not the job, and the command says how to take that back.
func TestInterruptedRevocation(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for range 3 {
		if _, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
			t.Fatal(err)
		}
	}
	key, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: api.AdminSubject, Kind: afterlogin.KindAPIKey, Scopes: []string{"sessions:read", "sessions:write"}})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := revocation.New(revocation.Options{Authority: a, Rate: 1}) // slow enough to be interrupted
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	handler := api.New(a, api.Options{Revocations: jobs})
	confirmed := false
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if confirmed {
			interrupt()
		}
		handler.ServeHTTP(w, r)
		confirmed = confirmed || strings.HasSuffix(r.URL.Path, "/confirm")
	}))
	defer srv.Close()
	var out, errs bytes.Buffer
	p := &program{streams: streams{In: strings.NewReader(""), Out: &out, Err: &errs}, environ: []string{"AFTERLOGIN_SERVER=" + srv.URL, "AFTERLOGIN_KEY=" + key.Token.Reveal()}}
	root := p.root()
	root.SetArgs([]string{"sessions", "revoke", "--query", "subject=mia", "--yes"})
	if err := root.ExecuteContext(ctx); err != context.Canceled {
		t.Fatalf("%v\n%s%s", err, &out, &errs)
	}
	list, err := jobs.List(t.Context())
	if err != nil || len(list) != 1 || list[0].State != revocation.Freezing && list[0].State != revocation.Frozen {
		t.Fatalf("%+v %v", list, err)
	}
	if want := "afterlogin revocations undo " + list[0].ID; !strings.Contains(errs.String(), want) {
		t.Errorf("no %q in %s", want, &errs)
	}
	if strings.Contains(out.String()+errs.String(), key.Token.Reveal()) {
		t.Error("the key is printed")
	}
	if q, err := query.Parse(list[0].Query); err != nil || q.String() != "subject=mia" {
		t.Errorf("%v %v", q, err)
	}
}
