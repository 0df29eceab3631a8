package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// The commands that let people into the console, against a real API.
func TestConsoleCommands(t *testing.T) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	door, err := entrance.New(entrance.Options{Authority: a})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(a, api.Options{Console: door}))
	defer server.Close()
	var scopes []string
	for _, s := range api.Scopes() {
		scopes = append(scopes, string(s))
	}
	key, err := a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: api.AdminSubject, Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = run(append([]string{"console"}, args...), []string{"AFTERLOGIN_SERVER=" + server.URL, "AFTERLOGIN_KEY=" + key.Token.Reveal()}, streams{In: strings.NewReader(""), Out: &o, Err: &e})
		return code, o.String(), e.String()
	}

	code, out, errs := command("link", "--role", "viewer", "--name", "ada", "--for", "2h")
	link, err := url.Parse(strings.TrimSpace(out))
	if code != exitOK || err != nil || !strings.HasPrefix(out, server.URL+"/console/enter?link=all_") || strings.Count(out, "\n") != 1 {
		t.Fatalf("link: %d %q %q", code, api.Redact(out), errs)
	}
	if !strings.Contains(errs, "ada in as viewer, once, until 20") || !strings.Contains(errs, "does not know by what address browsers reach it") || strings.Contains(errs, "all_") {
		t.Errorf("link says %q", errs)
	}
	l, err := door.Use(t.Context(), link.Query().Get(entrance.Param))
	if err != nil || l.Name != "ada" || l.Role != entrance.Viewer {
		t.Fatalf("the link: %+v %v", l, err)
	}
	got, err := a.Issue(t.Context(), afterlogin.IssueRequest{Tenant: entrance.Tenant, Subject: entrance.SubjectPrefix + "ada", Policy: afterlogin.PolicyConsole})
	if err != nil {
		t.Fatal(err)
	}
	if err := door.Admit(t.Context(), got.Session, l); err != nil {
		t.Fatal(err)
	}
	id := string(got.Session.ID)
	if code, out, errs := command("people"); code != exitOK || !regexp.MustCompile(`(?m)^ada +viewer +`+id+` +20.* `+string(key.Session.ID)+`$`).MatchString(out) {
		t.Errorf("people: %d %q %q", code, out, errs)
	}
	var who api.ConsolePerson
	if code, out, errs := command("people", "--json"); code != exitOK || json.Unmarshal([]byte(out), &who) != nil || who.Name != "ada" || who.Session.ID != id {
		t.Errorf("people --json: %d %q %q", code, out, errs)
	}
	if code, out, errs := command("revoke", id); code != exitOK || out != "ended "+id+"\n" {
		t.Errorf("revoke: %d %q %q", code, out, errs)
	}
	if code, out, _ := command("people", "--json"); code != exitOK || out != "" {
		t.Errorf("afterwards: %d %q", code, out)
	}
	var made api.ConsoleLink
	if code, out, _ := command("link", "--json"); code != exitOK || json.Unmarshal([]byte(out), &made) != nil || made.Role != "admin" || made.Name != "admin" {
		t.Errorf("link --json: %d %q", code, api.Redact(out))
	}
	var open api.ConsoleOpenLink
	if code, out, _ := command("links", "--json"); code != exitOK || json.Unmarshal([]byte(out), &open) != nil || open.ID != made.ID || open.By != string(key.Session.ID) || strings.Contains(out, "all_") {
		t.Errorf("links --json: %d %q", code, out)
	}
	if code, out, errs := command("links"); code != exitOK || !regexp.MustCompile(`(?m)^admin +admin +`+made.ID+` +20.* `+string(key.Session.ID)+`$`).MatchString(out) {
		t.Errorf("links: %d %q %q", code, out, errs)
	}
	if code, out, errs := command("cancel", made.ID); code != exitOK || out != "cancelled "+made.ID+"\n" {
		t.Errorf("cancel: %d %q %q", code, out, errs)
	}
	if code, out, _ := command("links", "--json"); code != exitOK || out != "" {
		t.Errorf("afterwards: %d %q", code, out)
	}
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"link --role owner":            {exitUsage, "--role admin or --role viewer"},
		"link --name Ada --role x y":   {exitUsage, ""},
		"link --name Ada":              {exitError, "body.name: want 1 to 64"},
		"link --for 2d":                {exitError, "body.lifetime: want 1s to 24h"},
		"cancel " + made.ID:            {exitError, "there is no such link"},
		"cancel":                       {exitUsage, ""},
		"revoke":                       {exitUsage, ""},
		"revoke " + got.Token.Reveal(): {exitUsage, "that is a token"},
		"revoke ses_nonsense":          {exitError, ""},
		"door":                         {exitUsage, "unknown command"},
	} {
		if code, _, errs := command(strings.Fields(args)...); code != want.code || !strings.Contains(errs, want.says) {
			t.Errorf("%s: %d %q, want %d %q", api.Redact(args), code, errs, want.code, want.says)
		}
	}
}
