package console

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// pageSize is how many rows a table has.
const pageSize = "50"

// sessionsData is what the list of sessions shows.
type sessionsData struct {
	api.FoundList
	Composed string // the query that the fields make
	More     bool   // one of the fields that are usually folded away is filled in
}

// sessions searches sessions, API keys and grants.
func (v *visit) sessions() error {
	q := v.r.URL.Query()
	if id := strings.TrimSpace(q.Get("q")); afterlogin.SessionID(id).Whole() {
		v.c.redirect(v.w, v.c.path("sessions", id))
		return nil
	}
	d := sessionsData{Composed: compose(q)}
	d.More = len(v.query("ip", "device", "client", "kind", "state", "sort")) > 0
	ask := v.query("sort", "cursor")
	ask.Set("limit", pageSize)
	if d.Composed != "" {
		ask.Set("q", d.Composed)
	}
	if err := v.get("/v1/search", ask, &d.FoundList); err != nil {
		return v.again("sessions", "Sessions", d, err)
	}
	return v.show("sessions", "Sessions", d)
}

// compose makes a query of the fields of the form; the text of the field q stands behind them as it is.
func compose(q url.Values) string {
	var terms []string
	add := func(name, op string) {
		if text := strings.TrimSpace(q.Get(name)); text != "" {
			terms = append(terms, name+op+quote(text))
		}
	}
	add("subject", "=")
	if ip := strings.TrimSpace(q.Get("ip")); strings.Contains(ip, "/") {
		terms = append(terms, "ip in "+quote(ip))
	} else {
		add("ip", "=")
	}
	add("device", "=")
	add("client", "=")
	add("kind", "=")
	add("state", "=")
	if text := strings.TrimSpace(q.Get("q")); text != "" {
		terms = append(terms, text)
	}
	return strings.Join(terms, " ")
}

// quote writes a value as the language of queries has it: within quotation marks, but for the * behind it that means
// whatever begins so.
func quote(text string) string {
	star := ""
	if rest, ok := strings.CutSuffix(text, "*"); ok && rest != "" {
		text, star = rest, "*"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"` + star
}

// sessionData is what the page of one session shows.
type sessionData struct {
	*api.Session
	Explained *api.Explanation // nil: the role may not ask
	Graph     graph
	Line      timeLine
	IsKey     bool
	Own       bool // it is the one that looks
	MayEnd    bool
	MayHold   bool
}

// session shows one session, API key, grant or token.
func (v *visit) session() error {
	id := v.r.PathValue("id")
	var s api.Session
	if err := v.get("/v1/sessions/"+seg(id), nil, &s); err != nil {
		return err
	}
	v.matters = func(e *api.Event) bool {
		return e.Session == s.ID || e.Root == s.ID || s.Root != "" && e.Root == s.Root || s.Subject != "" && e.Subject == s.Subject
	}
	d := sessionData{Session: &s, IsKey: s.Kind == "api_key", Own: s.ID == string(v.caller.ID)}
	if v.may(api.Explain) {
		var ex api.Explanation
		switch err := v.post("/v1/explain", api.ExplainRequest{ID: s.ID}, &ex); {
		case err == nil:
			d.Explained = &ex
		case problemOf(err) == nil || problemOf(err).Status >= 500:
			return err
		}
	}
	d.MayEnd = s.EndedAt == nil && v.may(api.SessionsWrite) && s.Kind != "client"
	d.MayHold = d.MayEnd && !d.Own
	var err error
	if d.Graph, err = v.graphOf(&s, d.Explained); err != nil {
		return err
	}
	d.Line = timeLineOf(&s, d.Explained, v.c.now())
	return v.show("session", "Session", d)
}

// askRevoke asks before a session is ended.
func (v *visit) askRevoke() error {
	id := v.r.PathValue("id")
	var s api.Session
	if err := v.get("/v1/sessions/"+seg(id), nil, &s); err != nil {
		return err
	}
	what := kindWords(s.Kind)
	q := question{
		Text:   []string{"It ends at once, on every server, and cannot be taken back. " + whose(&s) + " has to sign in again."},
		Button: "End the " + what, Action: "/sessions/" + seg(id) + "/revoke", Back: "/sessions/" + seg(id),
	}
	if s.Kind == "api_key" {
		q.Text = []string{"It ends at once, on every server, and cannot be taken back. Whatever uses it stops working: rotate it instead to replace it without a gap."}
	}
	if s.ID == string(v.caller.ID) {
		q.Text = append(q.Text, "This is the session that you are using now: you will be signed out of the console.")
	}
	if s.Kind == "session" && v.may(api.APIKeysWrite) {
		q.Offer, q.OfferText = "derived", "Also everything that came from it: grants and API keys that were made while signed in to it"
	}
	return v.confirm("End this "+what+"?", q)
}

func whose(s *api.Session) string {
	if s.Subject == "" {
		return "Who uses it"
	}
	return s.Subject
}

func (v *visit) revoke() error {
	id, what := v.r.PathValue("id"), "session-revoked"
	q := url.Values{"wait": {"true"}}
	if v.form.Get("derived") != "" {
		q.Set("derived", "true")
		what = "derived-revoked"
	}
	if err := v.del("/v1/sessions/"+seg(id), q); err != nil {
		return err
	}
	if id == string(v.caller.ID) {
		v.c.redirect(v.w, v.c.base+"/")
		return nil
	}
	return v.done("/sessions/"+seg(id), what)
}

func (v *visit) freeze() error {
	id := v.r.PathValue("id")
	why := v.field("reason")
	if why == "" {
		why = "looked into"
	}
	if err := v.post("/v1/sessions/"+seg(id)+"/freeze", map[string]string{"reason": why}, nil); err != nil {
		return err
	}
	return v.done("/sessions/"+seg(id), "session-frozen")
}

func (v *visit) thaw() error {
	id := v.r.PathValue("id")
	if err := v.call(http.MethodPost, "/v1/sessions/"+seg(id)+"/thaw", nil, nil, nil); err != nil {
		return err
	}
	return v.done("/sessions/"+seg(id), "session-thawed")
}
