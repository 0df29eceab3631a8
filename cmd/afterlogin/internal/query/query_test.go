package query

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"  ":                                   "",
		"client=mobile last_seen<90d":          "client=mobile last_seen<90d",
		"Client = mobile AND LAST_SEEN<90d":    "client=mobile last_seen<90d",
		"client=mobile and last_seen < 36h":    "client=mobile last_seen<1d12h",
		"ip in 203.0.113.9/24":                 "ip in 203.0.113.0/24",
		"ip in 203.0.113.9":                    "ip in 203.0.113.9",
		"ip = ::ffff:203.0.113.9":              "ip=203.0.113.9",
		"ip not in 2001:db8::1/32, 10.0.0.0/8": "ip not in 2001:db8::/32,10.0.0.0/8",
		`ip=""`:                                `ip=""`,
		"subject=mia*":                         "subject=mia*",
		`subject="mia*"`:                       `subject="mia*"`,
		`subject="mia m"*`:                     `subject="mia m"*`,
		`subject=*`:                            `subject=*`,
		`subject="mia"`:                        "subject=mia",
		`subject!=""`:                          `subject!=""`,
		`subject in mia`:                       "subject=mia",
		`subject not in mia`:                   "subject!=mia",
		`subject="a \"b\" \\c"`:                `subject="a \"b\" \\c"`,
		"policy in browser, remember":          "policy in browser,remember",
		"policy=a,b":                           `policy="a,b"`,
		"kind=grant":                           "kind=refresh_token",
		"kind=API_KEY":                         "kind=api_key",
		"created>2026-09-01T10:00":             "created>2026-09-01T10:00:00Z",
		"created>2026-09-01T10:00+02:00":       "created>2026-09-01T08:00:00Z",
		"created<2026-09-01":                   "created<2026-09-01T00:00:00Z",
		"created>2026-09-01t10:00:00.25z":      "created>2026-09-01T10:00:00.25Z",
		"expires=never":                        "expires=never",
		"expires<1h state=frozen":              "expires<1h state=frozen",
		"device=Firefox":                       "device=Firefox",
		"origin=ses_" + handleText:             "origin=ses_" + handleText,
		"android=":                             "", // an error, see below; here to see that "and" is not cut off
	} {
		q, err := Parse(text)
		if text == "android=" {
			if err == nil {
				t.Error("android is no field")
			}
			continue
		}
		if err != nil || q.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, q, err, want)
			continue
		}
		if again, err := Parse(want); err != nil || again.String() != want {
			t.Errorf("%q again is %q, %v", want, again, err)
		}
	}
}

const handleText = "B5w2qLeCWckf8H4XEcZB2RA"

func TestParseErrors(t *testing.T) {
	token := "als_" + strings.Repeat("A", 84)
	for text, want := range map[string]struct {
		column int
		part   string
	}{
		"last_sen<90d":                {1, "did you mean last_seen?"},
		"client=mobile  user=mia":     {16, "did you mean subject?"},
		"mia":                         {1, "subject=mia?"},
		"client":                      {7, "write client=mobile"},
		"client=":                     {8, "a value is missing"},
		"client<3":                    {7, "is no time"},
		"last_seen=90d":               {10, "compared with <"},
		"last_seen<=90d":              {10, "write <"},
		"last_seen<90":                {11, "90"},
		"last_seen<2026-13-01":        {11, "neither a time nor a span"},
		"last_seen<999999d":           {11, "neither a time nor a span"},
		"expires=soon":                {9, "expires=never"},
		"expires in never":            {9, "compared with <"},
		"kind=sesion":                 {6, "did you mean session?"},
		"kind=access_token":           {6, "known are session, api_key, refresh_token"},
		"state=alive":                 {7, "did you mean live?"},
		"ip=203.0.113.0/24":           {4, "write ip in 203.0.113.0/24"},
		"ip!=203.0.113.0/24":          {5, "write ip not in 203.0.113.0/24"},
		"ip in 203.0.113":             {7, "neither an address nor a network"},
		"ip in ::ffff:203.0.113.0/95": {7, "at least 96 bits"},
		"ip in fe80::1%eth0":          {7, "neither an address nor a network"},
		"ip=203.0.113.*":              {4, "takes no *"},
		"subject=m*a":                 {9, "at the end"},
		`subject="mia`:                {9, "not closed"},
		`subject="mia"x`:              {14, "behind the quotation mark"},
		`subject=mi"a`:                {11, "quotation mark within"},
		`subject="\n"`:                {10, "nothing needs"},
		"client=mobile or client=web": {15, "policy in browser,remember"},
		"(client=mobile)":             {1, "all terms must hold"},
		"not client=mobile":           {1, "kind!=api_key"},
		"client=mobile and":           {18, "a term is missing"},
		"and client=mobile":           {1, "a term is missing"},
		"é=1":                         {1, "does not begin a term"},
		`subject=é last_sen<1d`:       {11, "did you mean last_seen?"},
		"id=ses_x":                    {1, "sessions show"},
		"subject=\x01":                {9, "control character"},
		"subject=\xff":                {1, "UTF-8"},
		"origin=mia":                  {8, "not the handle"},
		"subject=" + token:            {1, "there is a token"},
		"subject=" + token[:50]:       {9, "looks like a token"},
		"subject=eyJhbGciOiJFZERTQSJ9.eyJzdWIiOi":     {9, "looks like a token"},
		strings.Repeat("a", 1001):                     {1001, "over 1000 bytes"},
		strings.Repeat("client=a ", 21):               {181, "over 20 terms"},
		"ip in " + strings.Repeat("::1,", 50) + "::2": {207, "over 50 values"},
	} {
		_, err := Parse(text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an error", text, err)
			continue
		}
		if e.Column != want.column || !strings.Contains(e.Error(), want.part) {
			t.Errorf("%q: %v, want column %d and %q", text, e, want.column, want.part)
		}
		if strings.Contains(e.Error(), token[:50]) {
			t.Errorf("a token stands in %v", e)
		}
	}
}

func TestMatch(t *testing.T) {
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	s := &afterlogin.Session{
		ID: "ses_" + handleText, Kind: afterlogin.KindSession, Subject: "mia", Client: "mobile", Policy: "remember",
		Created: now.Add(-100 * day), LastSeen: now.Add(-90 * day), Absolute: now.Add(time.Hour), Scopes: []string{"shop:read", "shop:write"},
		Auth:   afterlogin.Authentication{Methods: []string{"pwd", "otp", afterlogin.ACRMethod("gold")}},
		Device: afterlogin.Client{Addr: netip.MustParseAddr("::ffff:203.0.113.9"), UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
	}
	key := &afterlogin.Session{Kind: afterlogin.KindAPIKey, Name: "deploy-1", Policy: "api-key", Created: now, LastSeen: now, Origin: "ses_" + handleText}
	over := *s
	over.Ended, over.Why = now, afterlogin.ReasonReused
	idle := over
	idle.Why = afterlogin.ReasonIdle
	tests := []struct {
		s    *afterlogin.Session
		text string
		want bool
	}{
		{s, "", true}, {&over, "", false}, {&over, "state=any", true}, {s, "state=any", true},
		{s, "subject=mia", true}, {s, "subject=mi", false}, {s, "subject=mi*", true}, {s, "subject=*", true}, {s, `subject=""`, false}, {key, `subject=""`, true},
		{s, "subject!=mia", false}, {s, "subject in tom,mia", true}, {s, "subject not in tom,mia", false}, {s, "Subject=MIA", false},
		{s, "client=mobile kind=session policy=remember", true}, {s, "client=mobile kind=api_key", false}, {key, "name=deploy* kind!=session", true},
		{s, "scope=shop:read", true}, {s, "scope!=shop:read", false}, {s, "scope=admin", false}, {s, "scope=shop:*", true}, {key, `scope=""`, true}, {s, `scope=""`, false}, {key, "scope!=admin", true},
		{s, "method=otp", true}, {s, "method!=pwd", false}, {s, "method=acr:gold", false}, {s, "acr=gold", true}, {key, `acr=""`, true},
		{s, "device=firefox", true}, {s, `device="on linux"`, true}, {s, "device=X86_64", true}, {s, "device=chrome", false}, {s, "device!=chrome", true}, {key, `device=""`, true},
		{s, "ip in 203.0.113.0/24", true}, {s, "ip=203.0.113.9", true}, {s, "ip not in 203.0.113.0/24", false}, {key, "ip in 0.0.0.0/0", false}, {key, "ip not in 0.0.0.0/0", true}, {key, `ip=""`, true}, {s, `ip!=""`, true},
		{s, "ip in ::/0", false}, {s, "ip in ::ffff:203.0.113.0/120", true},
		{s, "last_seen<89d", true}, {s, "last_seen<90d", false}, {s, "last_seen>91d", true}, {s, "last_seen>90d", false}, {s, "created<99d", true},
		{s, "created>2026-05-01", true}, {s, "created<2026-05-01", false},
		{s, "expires<2h", true}, {s, "expires<30m", false}, {s, "expires>30m", true}, {s, "expires=never", false}, {key, "expires=never", true}, {key, "expires!=never", false}, {key, "expires<999d", false}, {key, "expires>1d", true},
		{s, "state=live", true}, {s, "state!=live", false}, {&over, "state!=live", true}, {&over, "state=ended", true}, {&over, "state=revoked", true}, {&over, "state=idle", false}, {&idle, "state=idle", true}, {&idle, "state=revoked", false}, {&idle, "state in idle,expired", true},
		{&over, "why=reused", true}, {s, "why=reused", false}, {&over, "why!=reused", false}, {s, `why=""`, true},
		{key, "origin=ses_" + handleText, true}, {s, `origin=""`, true}, {key, `origin!=""`, true},
	}
	for _, tt := range tests {
		q, err := Parse(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got := q.Match(tt.s, now); got != tt.want {
			t.Errorf("%q matches %+v: %v", tt.text, tt.s, got)
		}
	}
}

const day = 24 * time.Hour

// What is frozen cannot be made by hand.
func TestMatchFrozen(t *testing.T) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	got, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Freeze(t.Context(), got.Session.ID, "incident"); err != nil {
		t.Fatal(err)
	}
	s, err := a.Session(t.Context(), got.Session.ID)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"": true, "state=frozen": true, "state=live": false, "state=ended": false, "why=incident": true, "state=frozen why!=incident": false} {
		if q, err := Parse(text); err != nil || q.Match(s, time.Now()) != want {
			t.Errorf("%q: %v, %v", text, !want, err)
		}
	}
}

func TestSubject(t *testing.T) {
	for text, want := range map[string]string{"subject=mia kind=session": "mia", "subject in mia": "mia", "subject=mia*": "", "subject in mia,tom": "", "subject!=mia": "", `subject=""`: "", "client=x": ""} {
		q, err := Parse(text)
		if got, ok := q.Subject(); err != nil || got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
}

// Whatever is given: there is an answer, a query's text is read as the same query, and deciding does no harm.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"client=mobile last_seen<90d", "ip in 203.0.113.0/24,::1", `subject="mia m"*`, "expires=never and state!=live", "created>2026-09-01T10:00", `device="" ip=""`,
		"why=reused scope=a,b", `name="a\\\"b,c*"`, "subject=*", "ip not in 10.0.0.0/8", "origin=ses_" + handleText,
	} {
		f.Add(s)
	}
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	some := []*afterlogin.Session{{}, {Kind: afterlogin.KindSession, Subject: "mia", Created: now, LastSeen: now, Device: afterlogin.Client{Addr: netip.MustParseAddr("203.0.113.9"), UserAgent: "curl/8"}}}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Column < 1 || e.Message == "" || len(e.Error()) > 1000 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		again, err := Parse(q.String())
		if err != nil {
			t.Fatalf("%q is %q, which is none: %v", text, q, err)
		}
		if again.String() != q.String() || len(again.Terms()) != len(q.Terms()) {
			t.Fatalf("%q is %q, and that is %q", text, q, again)
		}
		for _, s := range some {
			if q.Match(s, now) != again.Match(s, now) {
				t.Fatalf("%q and %q decide differently", text, q)
			}
		}
	})
}
