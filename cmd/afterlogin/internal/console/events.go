package console

import (
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/webhook"
)

// maxEvents is how many events the page shows.
const maxEvents = 200

// eventsData is what the page of events shows.
type eventsData struct {
	Rows   []happening
	Since  time.Time // when the console began to listen; zero: not yet
	Types  []string
	Paused bool
	Max    int
	Audit  bool // older ones are in the audit log
}

// events shows what happens, while it happens.
func (v *visit) events() error {
	q := v.query("type", "subject")
	typ, subject := q.Get("type"), q.Get("subject")
	d := eventsData{Types: eventTypes(), Max: maxEvents, Paused: v.r.URL.Query().Get("pause") != ""}
	d.Audit = v.hasAudit()
	if why := badEventType(typ); why != "" {
		return v.again("events", "Events", d, fieldProblem("type", why))
	}
	wanted := func(e *api.Event) bool {
		return (typ == "" || matchesType(typ, e.Type)) && (subject == "" || e.Subject == subject)
	}
	v.matters = wanted
	d.Rows, d.Since = v.c.feed.last(maxEvents, wanted)
	return v.show("events", "Events", d)
}

// eventTypes are the types of events that are offered: those of each kind, and single ones.
func eventTypes() []string {
	types := webhook.Types()
	var out []string
	for _, t := range types {
		if kind, _, _ := strings.Cut(t, "."); !slices.Contains(out, kind+".*") {
			out = append(out, kind+".*")
		}
	}
	return append(out, types...)
}

// matchesType reports whether the type is the pattern: its name, or its beginning with a * behind it.
func matchesType(pattern, typ string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	return pattern == typ || wild && strings.HasPrefix(typ, prefix)
}

// badEventType says what is wrong with a pattern; empty: nothing.
func badEventType(pattern string) string {
	types := webhook.Types()
	if pattern == "" || slices.ContainsFunc(types, func(t string) bool { return matchesType(pattern, t) }) {
		return ""
	}
	text := "there are no events of this type: choose one of the list, or such as session.*"
	if near := config.Nearest(pattern, types); near != "" {
		text = "there are no events of this type; did you mean " + near + "?"
	}
	return text
}

// logFunctions are what the templates of pages can call that list what happened.
var logFunctions = template.FuncMap{"tone": tone, "handle": isHandle, "moment": moment, "hookState": stateOfWebhook,
	"share": share, "countdown": countdown, "ruleWords": ruleWords, "seconds": func(n int64) string { return span(time.Duration(n) * time.Second) }}

// moment is a time of a long list, in UTC.
func moment(at any) string { return strings.TrimSuffix(stamp(at), " UTC") }

// isHandle reports whether the text is the handle of something that has a page.
func isHandle(s string) bool {
	for _, p := range []string{"ses_", "key_", "grant_"} {
		if rest, ok := strings.CutPrefix(s, p); ok && rest != "" {
			return true
		}
	}
	return false
}

// tone says of what kind an event or an entry of the audit log is: the class of its badge.
func tone(typ string) string {
	switch {
	case strings.HasSuffix(typ, ".reuse_detected"), strings.HasSuffix(typ, ".replayed"), strings.HasSuffix(typ, ".rolled_back"), strings.HasPrefix(typ, "audit.damaged"):
		return "alarm"
	case strings.HasSuffix(typ, ".revoked"), strings.HasSuffix(typ, ".signed_out"), strings.HasSuffix(typ, ".superseded"):
		return "over"
	case strings.HasSuffix(typ, ".frozen"):
		return "hold"
	case strings.HasPrefix(typ, "api."), strings.HasPrefix(typ, "audit."), strings.HasPrefix(typ, "entry."):
		return ""
	}
	return "live"
}
