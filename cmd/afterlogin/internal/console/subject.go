package console

import (
	"net/http"
	"net/url"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// subjectData is what the page of a subject shows.
type subjectData struct {
	Name  string
	Rows  []*api.Session
	Next  string
	Ended bool
	User  bool // there is a built-in user of the name
}

// subject shows where a subject is signed in, and what else it has.
func (v *visit) subject() error {
	name := v.r.URL.Query().Get("name")
	if name == "" {
		return api.NewProblem(http.StatusBadRequest, "invalid-request", "Name a subject: the address of this page ends with ?name=…")
	}
	v.matters = func(e *api.Event) bool { return e.Subject == name }
	d := subjectData{Name: name, Ended: v.r.URL.Query().Get("ended") != ""}
	q := v.query("kind", "cursor")
	q.Set("limit", pageSize)
	if d.Ended {
		q.Set("ended", "true")
	}
	var list api.List
	if err := v.get("/v1/subjects/"+seg(name)+"/sessions", q, &list); err != nil {
		return err
	}
	d.Rows, d.Next = list.Data, list.Next
	if v.hasUsers() {
		err := v.get("/v1/users/"+seg(name), nil, nil)
		if p := problemOf(err); err != nil && (p == nil || p.Status >= 500) {
			return err
		}
		d.User = err == nil
	}
	return v.show("subject", "Subject", d)
}

// askSignOut asks before a subject is signed out everywhere.
func (v *visit) askSignOut() error {
	name := v.r.URL.Query().Get("name")
	q := question{
		Text: []string{
			"All sessions of " + name + " end at once, on every device and every server, however many there are. Sign-ins that are under way fail.",
			"API keys stay good, unless you say otherwise here.",
		},
		Button: "Sign out everywhere", Action: "/subject/sign-out", Back: subjectPath(name), Hidden: map[string]string{"name": name},
	}
	if v.may(api.APIKeysWrite) {
		q.Offer, q.OfferText = "everything", "End the API keys, too"
	}
	return v.confirm("Sign "+name+" out everywhere?", q)
}

// subjectPath is where the page of a subject is, below the base.
func subjectPath(name string) string { return "/subject?" + url.Values{"name": {name}}.Encode() }

func (v *visit) signOutSubject() error {
	name, what := v.form.Get("name"), "subject-out"
	q := url.Values{"wait": {"true"}}
	if v.form.Get("everything") != "" {
		q.Set("scope", "everything")
		what = "subject-out-all"
	}
	if err := v.del("/v1/subjects/"+seg(name)+"/sessions", q); err != nil {
		return err
	}
	return v.done(subjectPath(name), what)
}
