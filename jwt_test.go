package afterlogin_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func (h *house) jwt(s *afterlogin.Session, r afterlogin.AccessRequest) afterlogin.Issued {
	h.t.Helper()
	r.JWT = true
	got, err := h.IssueAccess(h.t.Context(), s, r)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func (h *house) jwtAt(t afterlogin.Token, aud string, want afterlogin.Reason) *afterlogin.Session {
	h.t.Helper()
	s, err := h.Validate(h.t.Context(), t, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}, Audience: []string{aud}})
	if afterlogin.ReasonOf(err) != want || want == "" && err != nil {
		h.t.Fatalf("Validate of a JWT = %v, want %q", err, want)
	}
	return s
}

func TestAJWTOfASession(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	got := h.jwt(in.Session, afterlogin.AccessRequest{Client: "app", Scopes: []string{"read", "write"}, Audience: []string{"https://orders.example"}})
	v := jwt.Verifier{Keys: h.JWKS(), Issuer: issuer, Audience: []string{"https://orders.example"}, Type: jwt.TypeAccessToken, Now: h.clock.now}
	c, err := v.Verify(t.Context(), got.Token.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != "mia" || c.SessionID != string(in.Session.ID) || c.ClientID != "app" || strings.Join(c.Scope, " ") != "read write" ||
		c.ID == "" || c.Expiry.Sub(h.clock.now()) != 5*time.Minute || c.AuthTime.IsZero() {
		t.Errorf("claims %+v", c)
	}
	for range 2 {
		s := h.jwtAt(got.Token, "https://orders.example", "")
		if s.Kind != afterlogin.KindJWT || s.Root != in.Session.ID || s.JWTID != c.ID || !s.Absolute.Equal(c.Expiry) || len(s.Scopes) != 2 {
			t.Errorf("Validate says %+v", s)
		}
	}
	h.jwtAt(got.Token, "https://other.example", afterlogin.ReasonWrongAudience)
	if _, err := h.Validate(t.Context(), got.Token, sessionFrom(home)); afterlogin.ReasonOf(err) != afterlogin.ReasonMalformed {
		t.Errorf("where only sessions are taken: %v", err)
	}
	if _, err := h.Validate(t.Context(), got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT},
		Audience: []string{"https://orders.example"}, Scopes: []string{"admin"}}); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Errorf("a scope it has not: %v", err)
	}
	h.clock.pass(5*time.Minute + 31*time.Second)
	h.jwtAt(got.Token, "https://orders.example", afterlogin.ReasonExpired)
}

func TestAJWTEndsWithItsSession(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	g := h.grant(in.Session, afterlogin.GrantRequest{Access: afterlogin.AccessRequest{JWT: true}})
	of := h.jwt(in.Session, afterlogin.AccessRequest{})
	h.jwtAt(of.Token, issuer, "")
	h.jwtAt(g.Access.Token, issuer, "")
	// The grant alone.
	if err := h.Revoke(t.Context(), g.Refresh.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	h.jwtAt(g.Access.Token, issuer, afterlogin.ReasonRevoked)
	h.jwtAt(of.Token, issuer, "")
	if err := h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	h.jwtAt(of.Token, issuer, afterlogin.ReasonSignedOutAll)
}

func TestAJWTNeverOutlivesItsSession(t *testing.T) {
	h := newHouse(t, withIssuer)
	got, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Lifetime: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if j := h.jwt(got.Session, afterlogin.AccessRequest{}); j.Session.Absolute.After(got.Session.Absolute) {
		t.Errorf("a JWT until %v of a session until %v", j.Session.Absolute, got.Session.Absolute)
	}
}

func TestAJWTIsNarrowedByExchange(t *testing.T) {
	h := newHouse(t, withIssuer)
	j := h.jwt(h.signIn("mia").Session, afterlogin.AccessRequest{Scopes: []string{"a", "b"}, Audience: []string{"x", issuer}})
	s := h.jwtAt(j.Token, issuer, "")
	if _, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{Scopes: []string{"c"}}); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Errorf("more than the JWT has: %v", err)
	}
	narrow := h.jwt(s, afterlogin.AccessRequest{Scopes: []string{"a"}, Audience: []string{"x"}, Actor: "svc"})
	if got := h.jwtAt(narrow.Token, "x", ""); got.Actor() != "svc" || len(got.Scopes) != 1 || got.Absolute.After(s.Absolute) {
		t.Errorf("the narrower one says %+v", got)
	}
}

func TestForgedJWTs(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	good := h.jwt(in.Session, afterlogin.AccessRequest{}).Token.Reveal()
	head, rest, _ := strings.Cut(good, ".")
	other, err := jwt.GenerateKey(jwt.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Sign(jwt.TypeAccessToken, &jwt.Claims{Issuer: issuer, Subject: "mia", Audience: []string{issuer},
		Expiry: h.clock.now().Add(time.Minute), IssuedAt: h.clock.now(), SessionID: string(in.Session.ID)})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no signature":  good[:strings.LastIndexByte(good, '.')+1],
		"two parts":     head + "." + rest[:10],
		"a foreign key": foreign,
		"alg none":      "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + strings.Split(good, ".")[1] + ".",
		"flipped":       good[:len(good)-5] + "AAAAA",
		"only eyJ":      "eyJ",
	} {
		_, err := h.Validate(t.Context(), afterlogin.TokenFrom(text), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}})
		if !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h2 := newHouse(t)
	if _, err := h2.Validate(t.Context(), afterlogin.TokenFrom(good), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}}); !errors.Is(err, afterlogin.ErrInvalidToken) {
		t.Errorf("without an issuer: %v", err)
	}
	if _, err := h2.IssueAccess(t.Context(), h2.signIn("mia").Session, afterlogin.AccessRequest{JWT: true}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a JWT without an issuer: %v", err)
	}
}

func TestAJWTIsExplained(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	j := h.jwt(in.Session, afterlogin.AccessRequest{})
	ex, err := h.Explain(t.Context(), j.Token, home)
	if err != nil || !ex.Valid || ex.Session == nil || ex.Session.ID != in.Session.ID {
		t.Errorf("a good one: %+v, %v", ex, err)
	}
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	ex, err = h.Explain(t.Context(), j.Token, home)
	if err != nil || ex.Valid || ex.Reason != afterlogin.ReasonRevoked {
		t.Errorf("after the sign-out: %+v, %v", ex, err)
	}
	ex, err = h.Explain(t.Context(), afterlogin.TokenFrom(j.Token.Reveal()+"A"), home)
	if err != nil || ex.Valid || ex.Reason != afterlogin.ReasonForged {
		t.Errorf("an altered one: %+v, %v", ex, err)
	}
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{})
	ex, err = h.Explain(t.Context(), g.Access.Token, home)
	if err != nil || !ex.Valid || ex.Session.Grant != g.Refresh.Session.ID {
		t.Errorf("an access token: %+v, %v", ex, err)
	}
}

func TestClients(t *testing.T) {
	h := newHouse(t)
	settings := json.RawMessage(`{"name":"Backend"}`)
	reg, err := h.AddClient(t.Context(), 0, "backend", settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddClient(t.Context(), 0, "backend", settings); err != afterlogin.ErrClientExists {
		t.Errorf("a second of the name: %v", err)
	}
	if _, err := h.AddClient(t.Context(), 1, "backend", settings); err != nil {
		t.Errorf("another tenant's of the name: %v", err)
	}
	reg2, err := h.ChangeClient(t.Context(), 0, "backend", json.RawMessage(`{"name":"B"}`), reg.Version)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ChangeClient(t.Context(), 0, "backend", settings, reg.Version); err != afterlogin.ErrClientChanged {
		t.Errorf("a change of what was changed: %v", err)
	}
	got, err := h.Client(t.Context(), 0, "backend")
	if err != nil || string(got.Settings) != `{"name":"B"}` || got.Version != reg2.Version {
		t.Errorf("Client = %+v, %v", got, err)
	}
	tok, err := h.IssueAccess(t.Context(), got.Session, afterlogin.AccessRequest{Client: "backend", Scopes: []string{"sync"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s := h.check(tok.Token, afterlogin.KindAccess, ""); s.Subject != "backend" || s.Client != "backend" || s.Scopes[0] != "sync" {
			t.Errorf("its own token says %+v", s)
		}
	}
	if _, err := h.AddClient(t.Context(), 0, "another", settings); err != nil {
		t.Fatal(err)
	}
	var names []string
	for c, err := range h.Clients(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, c.Client)
	}
	if len(names) != 2 {
		t.Errorf("clients %v", names)
	}
	for s := range h.Sessions(t.Context(), afterlogin.Query{}) {
		t.Errorf("a client is listed as a session: %+v", s)
	}
	if err := h.RemoveClient(t.Context(), 0, "backend"); err != nil {
		t.Fatal(err)
	}
	h.check(tok.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
	if _, err := h.Client(t.Context(), 0, "backend"); err != afterlogin.ErrNoClient {
		t.Errorf("after its removal: %v", err)
	}
	if _, err := h.AddClient(t.Context(), 0, "backend", settings); err != afterlogin.ErrClientExists {
		t.Errorf("a namesake of one that was removed: %v", err)
	}
	for _, bad := range []string{"", "with blank", "ünicode", strings.Repeat("x", 129)} {
		if _, err := h.AddClient(t.Context(), 0, bad, settings); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("client_id %q: %v", bad, err)
		}
	}
	if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "\x00clients"}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a sign-in as the clients: %v", err)
	}
}

// The class of an authentication travels as acr and not among the methods, and comes back as it was.
func TestClassOfAuthentication(t *testing.T) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Issuer: "https://auth.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	made, err := a.Issue(t.Context(), afterlogin.IssueRequest{
		Subject: "mia", Auth: afterlogin.Authentication{Methods: []string{"pwd", afterlogin.ACRMethod("urn:example:gold"), "otp"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.IssueAccess(t.Context(), made.Session, afterlogin.AccessRequest{JWT: true})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(got.Token.Reveal(), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		AMR []string
		ACR string
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	if claims.ACR != "urn:example:gold" || !slices.Equal(claims.AMR, []string{"pwd", "otp"}) {
		t.Errorf("in the token: %+v", claims)
	}
	s, err := a.Validate(t.Context(), got.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}})
	if err != nil {
		t.Fatal(err)
	}
	for _, auth := range []afterlogin.Authentication{made.Session.Auth, s.Auth} {
		if auth.ACR() != "urn:example:gold" || !slices.Equal(auth.AMR(), []string{"pwd", "otp"}) {
			t.Errorf("validated: %q, %q", auth.ACR(), auth.AMR())
		}
	}
	if none := (afterlogin.Authentication{Methods: []string{"pwd"}}); none.ACR() != "" || len(none.AMR()) != 1 {
		t.Errorf("without a class: %q, %q", none.ACR(), none.AMR())
	}
}
