package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// An event has one id, whoever reads the stream and wherever it begins; another one has another, also if it says the same.
func TestNaming(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	base := afterlogin.Event{Type: "session.revoked", At: at, Session: "ses_a", Root: "ses_a", Tenant: 1, Subject: "mia", Reason: "administrator", Detail: "d", Actor: "key_x", Cursor: "1"}
	seen := map[string]string{}
	mark := func(what string, e afterlogin.Event) {
		n := naming{}
		id := n.id(&e)
		if seen[id] != "" {
			t.Errorf("%s has the id of %s", what, seen[id])
		}
		seen[id] = what
		e.Cursor = "elsewhere"
		again := naming{}
		if again.id(&e) != id {
			t.Errorf("%s: the id depends on the cursor", what)
		}
		if other := (&naming{installation: [16]byte{1}}); other.id(&e) == id {
			t.Errorf("%s: two installations give the same id", what)
		}
	}
	mark("base", base)
	for what, change := range map[string]func(*afterlogin.Event){
		"type": func(e *afterlogin.Event) { e.Type = "x" }, "time": func(e *afterlogin.Event) { e.At = at.Add(time.Millisecond) },
		"session": func(e *afterlogin.Event) { e.Session = "ses_b" }, "root": func(e *afterlogin.Event) { e.Root = "ses_b" },
		"tenant": func(e *afterlogin.Event) { e.Tenant = 2 }, "subject": func(e *afterlogin.Event) { e.Subject = "tom" },
		"reason": func(e *afterlogin.Event) { e.Reason = "x" }, "detail": func(e *afterlogin.Event) { e.Detail = "x" },
		"actor": func(e *afterlogin.Event) { e.Actor = "x" }, "except": func(e *afterlogin.Event) { e.Except = "ses_c" },
		"everything": func(e *afterlogin.Event) { e.Everything = true },
		"boundaries": func(e *afterlogin.Event) { e.Subject, e.Reason = "miaadmin", "istrator" },
	} {
		e := base
		change(&e)
		mark(what, e)
	}
	// Three that say the same, with others between, are three; and the same three to one that begins in the middle with
	// what was saved, and after any of them.
	other := base
	other.Session = "ses_z"
	stream := []afterlogin.Event{base, other, base, base, other}
	whole := naming{}
	var ids []string
	for i := range stream {
		ids = append(ids, whole.id(&stream[i]))
	}
	if slices.Sort(ids); len(slices.Compact(slices.Clone(ids))) != 5 {
		t.Errorf("ids %v", ids)
	}
	for cut := range stream {
		first, rest := naming{}, naming{}
		var got []string
		for i := range stream[:cut] {
			got = append(got, first.id(&stream[i]))
		}
		rest.seen = first.seen[max(0, len(first.seen)-maxTwins):]
		for i := range stream[cut:] {
			got = append(got, rest.id(&stream[cut+i]))
		}
		if slices.Sort(got); !slices.Equal(got, ids) {
			t.Errorf("cut at %d: %v, want %v", cut, got, ids)
		}
	}
	for n := range 10 * remembered {
		e := base
		e.At = at.Add(time.Duration(n) * time.Second)
		whole.id(&e)
	}
	if len(whole.seen) > 2*remembered {
		t.Errorf("%d are remembered", len(whole.seen))
	}
}

// Every type of event that the core keeps can be asked for, and no other.
func TestTypesOfTheCore(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../../event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var core []string
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(v.Names[0].Name, "Event") || len(v.Values) != 1 {
			return true
		}
		s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if s != afterlogin.EventDuplicate && s != afterlogin.EventInURL { // only observed, never kept
			core = append(core, s)
		}
		return true
	})
	if slices.Sort(core); len(core) < 30 || !slices.Equal(core, Types()) {
		t.Errorf("the core has %v, and here are %v", core, Types())
	}
	for _, typ := range DefaultEvents() {
		if !slices.Contains(core, typ) {
			t.Errorf("there is no %s", typ)
		}
	}
	if len(DefaultEvents()) > maxPatterns {
		t.Error("the default is refused")
	}
}

func TestWants(t *testing.T) {
	for _, tt := range []struct {
		pattern, typ string
		want         bool
	}{
		{"*", "session.created", true}, {"session.*", "session.created", true}, {"session.created", "session.created", true},
		{"session.*", "sessions.created", false}, {"session*", "session.created", false}, {"session.cr*", "session.created", false}, {"session", "session.created", false},
		{"session.*", "api_key.created", false}, {".*", "session.created", false},
	} {
		if wants([]string{tt.pattern}, tt.typ) != tt.want {
			t.Errorf("%s %s: not %v", tt.pattern, tt.typ, tt.want)
		}
	}
	for _, bad := range [][]string{{"nothing"}, {"session.nothing"}, {""}, {"nothing.*"}, {"session*"}, make([]string, maxPatterns+1)} {
		if _, err := checkEvents(bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// A secret comes out by Reveal alone.
func TestSecret(t *testing.T) {
	s := newSecret()
	text := s.Reveal()
	key := strings.TrimPrefix(text, "whsec_")
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s, "all", struct{ S Secret }{s})
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, format+format, s, &s)
		fmt.Fprintf(&out, format, struct{ S Secret }{s})
	}
	if b, err := json.Marshal(s); err == nil {
		t.Errorf("written as JSON: %s", b)
	}
	raw := fmt.Sprint(s.key[0], " ", s.key[1], " ", s.key[2])
	if strings.Contains(out.String(), key[:8]) || strings.Contains(out.String(), raw) || strings.Contains(out.String(), fmt.Sprintf("%x", s.key[:8])) {
		t.Errorf("printed: %s", out.String())
	}
	if again, err := parseSecret(text); err != nil || again != s {
		t.Error(err)
	}
	for _, bad := range []string{"", "whsec_", key, "whsec_" + key[1:], text + "A", "whsec_!!"} {
		if _, err := parseSecret(bad); err == nil {
			t.Errorf("%q is a secret", bad)
		}
	}
}

// Signed by openssl dgst -sha256 -hmac, of the text that Standard Webhooks names.
func TestSignatureVector(t *testing.T) {
	const id, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", `{"test": 2432232314}`
	at := time.Unix(1614265330, 0)
	s := Secret{}
	copy(s.key[:], "0123456789abcdef0123456789abcdef")
	if got := s.sign(id, at, []byte(body)); got != "v1,hK4CWvngkaAwjY1pABLuUbOIkEJjW9tAapq1no4ojG0=" {
		t.Errorf("signed %s", got)
	}
}

// What CAEP's words are for, and what they are not.
func TestPayload(t *testing.T) {
	for _, tt := range []struct {
		event     Event
		uri       string
		subject   string
		initiator string
	}{
		{Event{Type: afterlogin.EventRevoked, Session: "ses_a", Subject: "mia", Reason: "signed_out", Actor: "self"}, caep + "session-revoked",
			`{"format":"complex","session":{"format":"opaque","id":"ses_a"},"user":{"format":"iss_sub","iss":"https://i","sub":"mia"}}`, "user"},
		{Event{Type: afterlogin.EventRevoked, Session: "ses_a", Reason: "administrator", Actor: "key_a"}, caep + "session-revoked", `{"format":"opaque","id":"ses_a"}`, "admin"},
		{Event{Type: afterlogin.EventReuse, Session: "ses_a", Subject: "mia", Tenant: 7, Reason: "reused", Actor: "key_a"}, caep + "session-revoked",
			`{"format":"complex","session":{"format":"opaque","id":"ses_a"},"user":{"format":"iss_sub","iss":"https://i","sub":"mia"},"tenant":{"format":"opaque","id":"7"}}`, "policy"},
		{Event{Type: afterlogin.EventSubject, Subject: "mia", Reason: "password_changed"}, caep + "session-revoked", `{"format":"iss_sub","iss":"https://i","sub":"mia"}`, "user"},
		{Event{Type: afterlogin.EventSubject, Subject: "mia", Except: "ses_a"}, urn + "subject.signed_out", `{"format":"iss_sub","iss":"https://i","sub":"mia"}`, "system"},
		{Event{Type: afterlogin.EventKeyRevoked, Session: "key_a", Reason: "administrator"}, urn + "api_key.revoked", `{"format":"opaque","id":"key_a"}`, "admin"},
		{Event{Type: afterlogin.EventFrozen, Session: "ses_a", Actor: "console/mia"}, urn + "session.frozen", `{"format":"opaque","id":"ses_a"}`, "admin"},
		{Event{Type: afterlogin.EventCreated, Session: "ses_a"}, caep + "session-established", `{"format":"opaque","id":"ses_a"}`, "user"},
		{Event{Type: EventMissed}, urn + "events.missed", `{"format":"opaque","id":"wh_x"}`, "system"},
	} {
		tt.event.At = time.UnixMilli(1_700_000_000_123).UTC()
		b, err := body("https://i", "wh_x", &item{ID: "evt_1", Event: tt.event})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Sub    json.RawMessage `json:"sub_id"`
			Iat    int64
			Events map[string]struct {
				At        int64  `json:"event_timestamp"`
				Initiator string `json:"initiating_entity"`
			}
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		e, ok := got.Events[tt.uri]
		if !ok || len(got.Events) != 1 || e.At != 1_700_000_000 || e.Initiator != tt.initiator || string(got.Sub) != tt.subject || got.Iat != 1_700_000_000 {
			t.Errorf("%+v:\n%s", tt.event, b)
		}
	}
	b, err := body("", "wh_x", &item{ID: "evt_1", Event: Event{Type: afterlogin.EventRevoked, Subject: "mia"}})
	if err != nil || strings.Contains(string(b), `"iss"`) || !strings.Contains(string(b), `"sub_id":{"format":"opaque","id":"mia"}`) {
		t.Errorf("without an issuer: %s", b)
	}
}

// Whatever an event says fits into an entry.
func TestItemFits(t *testing.T) {
	full := strings.Repeat("\x01", 512)
	i := &item{ID: "evt_" + strings.Repeat("x", 24), Term: 1 << 63, Tries: 1 << 30, Error: strings.Repeat("x", maxError), Event: Event{
		Type: strings.Repeat("t", 64), Session: strings.Repeat("s", 30), Root: strings.Repeat("s", 30), Subject: strings.Repeat("\x01", 256), Reason: strings.Repeat("r", 64),
		Detail: full, Actor: strings.Repeat("a", 128), Except: strings.Repeat("s", 30), At: time.Now(),
	}}
	b, err := i.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeItem(b); err != nil || got.ID != i.ID || got.Event.Subject != i.Event.Subject {
		t.Error(err)
	}
}

// A webhook that is taken fits into its entry whatever becomes of it, with the longest cursor.
func TestRecordFits(t *testing.T) {
	r := &record{URL: "https://shop.example/" + strings.Repeat("x", maxURL-21), Events: DefaultEvents(), Description: strings.Repeat(`"`, maxDescription), Secret: newSecret().Reveal()}
	if err := r.fits(); err != nil {
		t.Error(err)
	}
}

// Records and items that are read back are of the form that was written, or refused.
func FuzzRead(f *testing.F) {
	r := &record{ID: newID(7), URL: "https://shop.example/", Events: []string{"*"}, Secret: newSecret().Reveal(), Requests: []again{{1, 0, 1}}, Asked: 1, State: state{Tail: 4, DeadTo: 2, Twins: []twin{{1, 2}}}}
	b, _ := r.encode()
	f.Add(b)
	b, _ = (&record{Deleted: true}).encode()
	f.Add(b)
	b, _ = (&item{ID: "evt_x", Event: Event{Type: "session.revoked", At: time.Now()}}).encode()
	f.Add(b)
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1,"s":{"head":5,"tail":2}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRecord(b); err == nil {
			out, err := r.encode()
			if err != nil && len(b) < maxRecord/2 {
				t.Fatalf("%q cannot be written: %v", b, err)
			}
			if err == nil {
				if _, err := decodeRecord(out); err != nil {
					t.Fatalf("%q is not read again: %v", out, err)
				}
			}
			if !r.Deleted && (len(r.secrets(time.Now())) == 0 || r.State.waiting() > 1<<63 && r.State.Tail < 1<<63) {
				t.Fatalf("%q", b)
			}
		}
		if i, err := decodeItem(b); err == nil {
			if strings.ContainsAny(i.ID, "\r\n ") {
				t.Fatalf("%q", i.ID)
			}
			if _, err := body("https://i", "wh_x", i); err != nil && i.Event.At.Year() < 10000 && i.Event.At.Year() >= 0 {
				t.Fatalf("%q: %v", b, err)
			}
		}
	})
}
