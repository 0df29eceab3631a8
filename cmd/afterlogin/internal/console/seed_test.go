package console

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/afterlogin/afterlogin"
)

// The devices of the people in seed.
var agents = []string{
	"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
	"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
}

// town is what seed has made.
type town struct {
	mia    afterlogin.SessionID // with grants and a key that came from it, renewed twice
	stolen afterlogin.SessionID // ended by a theft alarm
	key    afterlogin.SessionID
}

// must fails the test at an error.
func must[T any](h *house) func(T, error) T {
	return func(v T, err error) T {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
		return v
	}
}

// seed makes people, sessions, keys, a client, a user, renewals and a theft.
func (h *house) seed() town {
	h.t.Helper()
	ctx := h.t.Context()
	issue := func(r afterlogin.IssueRequest) afterlogin.Issued {
		h.t.Helper()
		got := must[afterlogin.Issued](h)(h.a.Issue(ctx, r))
		h.keep(got.Token.Reveal())
		return got
	}
	device := func(i int) afterlogin.Client {
		return afterlogin.Client{Addr: netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)}), UserAgent: agents[i%len(agents)]}
	}
	rotate := func(got afterlogin.Issued, from afterlogin.Client) afterlogin.Issued {
		h.t.Helper()
		next := must[afterlogin.Issued](h)(h.a.Rotate(ctx, got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: from}))
		h.keep(next.Token.Reveal())
		return next
	}
	var out town
	for i, name := range []string{"mia", "tom", "ada", "kim", "lea", "max", "zoe"} {
		for j := range 1 + i%3 {
			issue(afterlogin.IssueRequest{Subject: name, Device: device(i + j), Auth: afterlogin.Authentication{Methods: []string{"pwd"}}})
		}
	}
	mia := issue(afterlogin.IssueRequest{Subject: "mia", Policy: afterlogin.PolicyRemember, Device: device(1), Auth: afterlogin.Authentication{Methods: []string{"pwd", "otp"}}})
	out.mia = mia.Session.ID
	out.key = issue(afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Name: "backup script", Scopes: []string{"files:read"}, Origin: out.mia}).Session.ID
	issue(afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "shop", Name: "checkout", Scopes: []string{"validate", "sessions:write"}})
	stolen := issue(afterlogin.IssueRequest{Subject: "tom", Device: device(2)})
	out.stolen = stolen.Session.ID
	for range 2 {
		h.later(16 * time.Minute)
		mia = rotate(mia, device(1))
		must[*afterlogin.Session](h)(h.a.Validate(ctx, mia.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: device(1)}))
	}
	h.theft(stolen, device(2), device(3))
	all := h.key("admin", "users:write", "clients:write", "api-keys:write", "sessions:write")
	for _, c := range []struct {
		path string
		in   map[string]any
	}{
		{"/v1/users", map[string]any{"name": "mia", "password": "correct horse battery staple", "scopes": []string{"orders:read"}}},
		{"/v1/users", map[string]any{"name": "tom", "password": "another horse battery staple"}},
		{"/v1/clients", map[string]any{"id": "mobile", "name": "Shop app", "auth": "none", "grant_types": []string{"authorization_code", "refresh_token"}, "redirect_uris": []string{"https://app.example/back"}, "offline": true}},
		{"/v1/keys/rotate", map[string]any{}},
	} {
		if status, body := h.call(all, "POST", c.path, c.in); status != 201 {
			h.t.Fatalf("%s: %d %s", c.path, status, body)
		}
	}
	return out
}

// theft has the owner of a session renew its token, and a thief use the old one.
func (h *house) theft(got afterlogin.Issued, owner, thief afterlogin.Client) {
	h.t.Helper()
	ctx := h.t.Context()
	next := must[afterlogin.Issued](h)(h.a.Rotate(ctx, got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: owner}))
	h.keep(next.Token.Reveal())
	must[*afterlogin.Session](h)(h.a.Validate(ctx, next.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: owner}))
	h.later(2 * time.Minute)
	_, err := h.a.Validate(ctx, got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: thief, CanRenew: true})
	if why := afterlogin.ReasonOf(err); why != afterlogin.ReasonReused {
		h.t.Fatalf("the theft: %v", fmt.Sprint(err))
	}
}
