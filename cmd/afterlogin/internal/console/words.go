package console

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
)

// done is what pages say after an act, by the word in their address.
var done = map[string]string{
	"session-revoked":  "The session is ended.",
	"derived-revoked":  "The session is ended, with everything that came from it.",
	"session-frozen":   "The session is frozen: it is refused until it is thawed.",
	"session-thawed":   "The session is thawed: it is good again.",
	"subject-out":      "Signed out everywhere. API keys stay good.",
	"subject-out-all":  "Signed out everywhere, and the API keys are ended.",
	"key-revoked":      "The API key is ended.",
	"client-made":      "The client is registered.",
	"client-removed":   "The client is removed.",
	"link-cancelled":   "The link is cancelled: it lets nobody in any more.",
	"user-disabled":    "The user is disabled, and signed out everywhere.",
	"user-enabled":     "The user can sign in again.",
	"password-set":     "The password is changed, and the user is signed out everywhere.",
	"user-made":        "The user is made.",
	"key-rotated":      "A new signing key is published. It begins to sign when verifiers have had time to read it.",
	"key-retired":      "The signing key is taken away.",
	"access-ended":     "The person is signed out of the console.",
	"webhook-changed":  "The webhook is changed. What waits goes to it as it is now.",
	"webhook-disabled": "The webhook is disabled: nothing is sent. What happens meanwhile is sent when it is enabled again.",
	"webhook-enabled":  "The webhook is enabled: it goes on where it was.",
	"webhook-removed":  "The webhook is removed.",
	"redelivered":      "Sent again within two seconds, behind what is waiting.",
	"job-confirmed":    "Confirmed.",
	"job-undone":       "Taken back: what was frozen is being thawed.",
	"job-cancelled":    "Cancelled: nothing was ended.",
}

// functions are what templates can call.
func (c *Console) functions() template.FuncMap {
	return template.FuncMap{
		"path": c.path, "asset": func(name string) string { return c.base + c.assets[name].path },
		"ago": ago, "left": left, "stamp": stamp, "iso": iso, "when": when, "reason": reason, "kind": kindWords, "device": deviceWords, "short": short, "timer": timer, "title": title,
		"withQuery": with, "dict": dict, "list": func(a ...any) []any { return a }, "plural": plural, "thousands": thousands, "join": strings.Join, "lower": strings.ToLower,
	}
}

// path returns the address of a page below the base: each part is one segment. The first may have several.
func (c *Console) path(parts ...string) string {
	var b strings.Builder
	b.WriteString(c.base)
	for i, p := range parts {
		if i == 0 {
			b.WriteString("/" + p)
			continue
		}
		b.WriteString("/" + seg(p))
	}
	return b.String()
}

// with returns the query of a page with some parameters exchanged: name, value, name, value. An empty value takes one away.
func with(q url.Values, pairs ...string) string {
	out := url.Values{}
	for k, v := range q {
		if k != "done" && k != "live" {
			out[k] = v
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if out.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			out.Del(pairs[i])
		}
	}
	return "?" + out.Encode()
}

// dict makes what a template of several arguments gets.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, fmt.Errorf("dict: want pairs")
	}
	m := make(map[string]any, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m, nil
}

// asTime takes a time.Time or a *time.Time; false if there is none.
func asTime(t any) (time.Time, bool) {
	switch t := t.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil && !t.IsZero() {
			return *t, true
		}
	}
	return time.Time{}, false
}

// when says for people how long before or after now a time is.
func when(now time.Time, at any) string {
	t, ok := asTime(at)
	switch {
	case !ok:
		return "never"
	case t.After(now):
		return "in " + span(t.Sub(now))
	case now.Sub(t) < 5*time.Second:
		return "just now"
	}
	return span(now.Sub(t)) + " ago"
}

func ago(now time.Time, at any) string { return when(now, at) }

// left says how much of the time to an end is left.
func left(now time.Time, at any) string {
	t, ok := asTime(at)
	switch {
	case !ok:
		return "no end"
	case !t.After(now):
		return "over"
	}
	return span(t.Sub(now)) + " left"
}

// span says how long a time is, in its two greatest units.
func span(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		n := d / u.size
		if n == 0 {
			continue
		}
		text := strconv.Itoa(int(n)) + " " + u.name
		if u.name == "day" && n > 1 {
			text += "s"
		}
		if i+1 < len(units) && n < 10 {
			if m := (d % u.size) / units[i+1].size; m > 0 && !(u.name == "min" && n >= 5) {
				text += " " + strconv.Itoa(int(m)) + " " + units[i+1].name
			}
		}
		return text
	}
	return "under 1 s"
}

// stamp is a time as people read it, in UTC.
func stamp(at any) string {
	t, ok := asTime(at)
	if !ok {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// iso is a time for programs.
func iso(at any) string {
	t, ok := asTime(at)
	if !ok {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// reasons are why sessions end and tokens are refused, for people who look after them.
var reasons = map[string]string{
	"signed_out":       "signed out",
	"signed_out_all":   "signed out everywhere",
	"administrator":    "ended by an administrator",
	"superseded":       "replaced by a newer sign-in",
	"expired":          "reached its greatest age",
	"idle":             "not used for too long",
	"reused":           "theft alarm: an out-of-date copy was used",
	"rolled_back":      "the store had lost changes",
	"token_in_url":     "its token stood in an address",
	"origin_ended":     "what it came from was ended",
	"restored":         "the store was restored",
	"unreadable":       "its record does not open",
	"revoked":          "ended",
	"frozen":           "frozen",
	"password_changed": "the password was changed",
	"reported":         "reported by the person: this wasn't me",
	"session_limit":    "too many sessions",
	"not_made":         "its sign-in failed",
	"malformed":        "not a token",
	"wrong_kind":       "a token of another kind",
	"forged":           "not issued here, or altered",
	"unknown":          "no such session",
	"wrong_tenant":     "of another tenant",
	"wrong_client":     "of another client",
	"wrong_audience":   "made for another service",
	"wrong_network":    "used from a network where it may not be",
	"wrong_target":     "made for another address",
	"used":             "used before",
	"renew":            "out of date by a lost answer",
	"scope":            "lacks the scope",
	"stale_auth":       "signed in too long ago",
	"stale_sign_in":    "signed out during the sign-in",
	"duplicate":        "two credentials in one request",
	"no_credential":    "no credential",
	"rate_limited":     "too many requests",
	"disabled":         "the user was disabled",
}

// reason puts a reason into words; one that is not known stays as it is.
func reason(r any) string {
	s := fmt.Sprint(r)
	if w, ok := reasons[s]; ok {
		return w
	}
	return strings.ReplaceAll(s, "_", " ")
}

var kindNames = map[string]string{
	"session": "session", "api_key": "API key", "refresh_token": "OAuth grant", "access_token": "access token",
	"authorization_code": "authorization code", "ticket": "ticket", "jwt": "JWT", "client": "client",
}

func kindWords(k string) string {
	if w, ok := kindNames[k]; ok {
		return w
	}
	return k
}

// short shortens a handle for where the whole of it has no room: what it is, and its first characters.
func short(id string) string {
	prefix, rest, ok := strings.Cut(id, "_")
	if !ok || len(rest) < 12 {
		return id
	}
	return prefix + "_" + rest[:10] + "…"
}

// title begins a text with a capital letter.
func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

var timers = map[string]string{"idle": "ends, if it is not used", "absolute": "ends in any case", "renewal": "token is renewed at the next use", "grace": "old token is good until"}

// timer says what happens when a timer is over.
func timer(name string) string {
	if w, ok := timers[name]; ok {
		return w
	}
	return name
}

// deviceWords says what kind of device a User-Agent header is of.
func deviceWords(agent string) string { return device.Name(agent) }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes a number with a narrow blank between every three digits.
func thousands(n any) string {
	s := fmt.Sprint(n)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	if neg {
		s = "−" + s
	}
	return s
}
