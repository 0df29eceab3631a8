package console

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// The screen has the links that are open, and who was let in by whom; an admin cancels a link there.
func TestOpenLinksOnTheScreen(t *testing.T) {
	h := newHouse(t)
	admin, viewer := h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	if a := admin.post("/console/people/link", "role", "viewer", "name", "ada", "lifetime", "2h"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, words(a.body))
	}
	all, err := h.entrance.Links(t.Context())
	if err != nil || len(all) != 1 || all[0].By != "console/tom" {
		t.Fatalf("%+v %v", all, err)
	}
	at := "/console/people/links/" + all[0].ID + "/cancel"
	for _, b := range []*browser{admin, viewer} {
		page := b.page("/console/people")
		if !strings.Contains(words(page), "ada viewer "+all[0].ID+" console/tom") || strings.Contains(page, "all_") {
			t.Errorf("the links: %s", words(page))
		}
		if offered := strings.Contains(page, at); offered != (b == admin) {
			t.Errorf("to cancel it is offered: %t", offered)
		}
	}
	if a := viewer.post(at); a.status != http.StatusForbidden {
		t.Errorf("a viewer cancels it: %d", a.status)
	}
	admin.want("/console/people?done=link-cancelled", at)
	if page := words(admin.page("/console/people")); strings.Contains(page, "ada") || !strings.Contains(page, "None is open") {
		t.Errorf("afterwards: %s", page)
	}
	if a := admin.post(at); a.status != http.StatusNotFound {
		t.Errorf("once more: %d %s", a.status, words(a.body))
	}
}

// What was made by somebody who was thrown out lets nobody in, and the log tells who came in with which link.
func TestLinkOfSomebodyThrownOut(t *testing.T) {
	var mu sync.Mutex
	came := make(map[afterlogin.SessionID]string) // by whom sessions were made
	h := newHouse(t, func(c *afterlogin.Config) {
		pass := c.Observe
		c.Observe = func(e afterlogin.Event) {
			if e.Type == "session.created" {
				mu.Lock()
				came[e.Session] = e.Actor
				mu.Unlock()
			}
			pass(e)
		}
	})
	tom, xavier := h.enter(entrance.Admin, "tom"), h.enter(entrance.Admin, "xavier")
	var links []string
	for range 2 {
		a := xavier.post("/console/people/link", "role", "admin", "name", "mia", "lifetime", "24h")
		from := strings.Index(a.body, "/console/enter?link=")
		if a.status != http.StatusOK || from < 0 {
			t.Fatalf("%d %s", a.status, words(a.body))
		}
		path := a.body[from:]
		path = path[:strings.IndexAny(path, `"< `)]
		h.keep(strings.TrimPrefix(path, "/console/enter?link="))
		links = append(links, path)
	}
	enter := func(path string) int {
		b := h.browser()
		b.get(path)
		b.get("/console/enter")
		return b.send("/console/enter", url.Values{}, nil).status
	}
	if got := enter(links[0]); got != http.StatusSeeOther {
		t.Fatalf("the first: %d", got)
	}
	page, err := h.entrance.People(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range page.People {
		if p.Name != "mia" {
			continue
		}
		if p.By != "console/xavier" || !strings.HasPrefix(p.Link, "link_") {
			t.Errorf("let in: %+v", p)
		}
		mu.Lock()
		if came[p.Session.ID] != p.Link {
			t.Errorf("the event says %q, want the link %s", came[p.Session.ID], p.Link)
		}
		mu.Unlock()
	}
	tom.post("/console/sessions/" + xavier.session() + "/revoke")
	if got := enter(links[1]); got != http.StatusGone {
		t.Errorf("the second, after its maker was thrown out: %d", got)
	}
}

// A limit of sessions that counts for the console, too, is told as what it is.
func TestEnterAtALimit(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) {
		c.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1, AtLimit: afterlogin.DenyNew}}
	})
	h.enter(entrance.Admin, "admin")
	b := h.browser()
	b.get(h.link(entrance.Admin, "admin"))
	b.page("/console/enter")
	if a := b.send("/console/enter", url.Values{}, nil); a.status != http.StatusConflict || !strings.Contains(words(a.body), "as often as the session limit allows") {
		t.Errorf("%d %s", a.status, words(a.body))
	}
}

// A viewer sees clients, and is offered nothing that changes them.
func TestViewerSeesClients(t *testing.T) {
	h := newHouse(t)
	admin, viewer := h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	if a := admin.post("/console/clients/new", "id", "job", "name", "Job", "auth", "secret", "grant_types", "client_credentials", "scopes", "read"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, words(a.body))
	}
	if page := viewer.page("/console/clients"); !strings.Contains(words(page), "job Job secret") || strings.Contains(page, "/console/clients/new") {
		t.Errorf("the list: %s", words(page))
	}
	if page := viewer.page("/console/clients/job"); strings.Contains(page, "/clients/job/") || !strings.Contains(admin.page("/console/clients/job"), "/clients/job/remove") {
		t.Errorf("the client: %s", words(page))
	}
	for _, at := range []string{"/console/clients/job/remove", "/console/clients/job/secret", "/console/clients/new"} {
		if a := viewer.get(at); a.status != http.StatusForbidden {
			t.Errorf("%s: %d", at, a.status)
		}
	}
}
