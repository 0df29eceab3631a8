package httpauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// A hand-over lets a person who is signed in on one host be signed in on another, without a cookie that both hosts see:
//
//  1. On shop.example, StartHandOver remembers a secret in a cookie and sends the browser to the other host, with the
//     secret's digest.
//  2. On accounts.example, behind a sign-in if need be, HandOver makes a ticket that is bound to that digest and to the
//     page, and sends the browser back with it.
//  3. On shop.example, AcceptHandOver exchanges the ticket for a session cookie of its own and takes it out of the
//     address.
//
// The new session lives below the one it came from, and ends with it. Because of the secret, a ticket is worth nothing in
// another browser: nobody can sign somebody else in to his own account, and who reads a log finds nothing of use.

// The names of the cookie that binds a ticket to a browser.
const (
	nonceCookie      = "__Host-Http-ticket_nonce"
	plainNonceCookie = "ticket_nonce"
	// nonceAge is for how long a hand-over may take, in seconds: somebody may have to sign in on the way.
	nonceAge = "600"
)

// The parameters of a request for a hand-over.
const (
	handOverTo    = "to"
	handOverNonce = "nonce"
)

func (x *Auth) nonceCookie() string {
	if x.options.PlainLoopback {
		return plainNonceCookie
	}
	return nonceCookie
}

// HandOverNonce has the answer set the cookie that binds a ticket to this browser, and returns what to give to the host
// that makes the ticket: 43 characters of base64url, no secret. A browser that has the cookie keeps its value, so that
// two tabs do not disturb each other. It must be called before the headers are written. StartHandOver calls it.
func (x *Auth) HandOverNonce(w http.ResponseWriter, r *http.Request) string {
	value := x.nonceOf(r)
	if value == "" {
		var b [32]byte
		rand.Read(b[:])
		value = base64.RawURLEncoding.EncodeToString(b[:])
	}
	set := x.nonceCookie() + "=" + value + "; Path=/; Max-Age=" + nonceAge + "; HttpOnly; SameSite=Lax"
	if !x.options.PlainLoopback {
		set += "; Secure"
	}
	w.Header().Add("Set-Cookie", set)
	noStore(w.Header())
	return digest(value)
}

// nonceOf returns the value of the cookie that came with the request, or "".
func (x *Auth) nonceOf(r *http.Request) string {
	value, count, err := findCookie(r.Header["Cookie"], x.nonceCookie())
	if err != nil || count != 1 || !isNonce(value) {
		return ""
	}
	return value
}

// isNonce reports whether s is 32 bytes in base64url.
func isNonce(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && !strings.ContainsAny(s, "\r\n")
}

func digest(nonce string) string {
	sum := sha256.Sum256([]byte("afterlogin/handover/1\x00" + nonce))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// StartHandOver sends the browser to the host where the person is signed in, or can sign in: at is the address of the
// HandOver handler there. The browser comes back to returnTo, a path of this host (see SafeReturn), which must be behind
// AcceptHandOver. Options.Origin must be set.
//
// The error is of what the program got wrong, and nothing is written then.
func (x *Auth) StartHandOver(w http.ResponseWriter, r *http.Request, at, returnTo string) error {
	if x.options.Origin == "" {
		return errNoOrigin
	}
	u, err := url.Parse(at)
	if err != nil || !isOrigin(u.Scheme+"://"+u.Host, x.options.PlainLoopback) || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return fmt.Errorf("%w: StartHandOver: at is not an address such as https://accounts.example/hand-over", afterlogin.ErrBadRequest)
	}
	q := url.Values{handOverTo: {x.options.Origin + SafeReturn(returnTo)}, handOverNonce: {x.HandOverNonce(w, r)}}
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, at+"?"+q.Encode(), http.StatusSeeOther)
	return nil
}

// HandOver is the handler that StartHandOver of other applications sends browsers to. It asks for a signed-in person, as
// Require does, and sends the browser back with a ticket, to one of the origins in Options.HandOverTo and nowhere else.
func (x *Auth) HandOver() http.Handler {
	return x.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil || len(q[handOverTo]) != 1 || len(q[handOverNonce]) != 1 || r.Method != http.MethodGet {
			Answer(w, r, errBadHandOver)
			return
		}
		if err := x.SendOver(w, r, q[handOverTo][0], q[handOverNonce][0]); err != nil {
			Answer(w, r, err)
		}
	}))
}

// SendOver makes a ticket for the session of the request, and answers with a redirect to the address with that ticket.
// The address must be of an origin in Options.HandOverTo, and nonce what HandOverNonce returned there. HandOver calls it;
// call it yourself where a person is asked first. Nothing is written if it fails.
func (x *Auth) SendOver(w http.ResponseWriter, r *http.Request, to, nonce string) error {
	v, err := x.open(r)
	if err != nil {
		return err
	}
	s, err := v.person()
	if err != nil {
		return err
	}
	if !usesTicket(r) || !document(r) {
		return errTicketKept
	}
	u, err := url.Parse(to)
	if err != nil || u.User != nil || u.Fragment != "" || !slices.Contains(x.options.HandOverTo, u.Scheme+"://"+u.Host) || !isNonce(nonce) {
		return errBadHandOver
	}
	origin := u.Scheme + "://" + u.Host
	path := strings.TrimPrefix(to, origin)
	if path == "" {
		path = "/"
	}
	if SafeReturn(path) != path {
		return errBadHandOver
	}
	got, err := x.authority.IssueTicket(r.Context(), s, afterlogin.TicketRequest{Target: origin + canonical(path), Nonce: nonce})
	if err != nil {
		return err
	}
	noStore(w.Header())
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, withTicket(origin+path, got.Token), http.StatusSeeOther)
	return nil
}

// document reports whether the answer becomes a page of its own, rather than a part of one that may be anybody's.
// Browsers that do not say are believed.
func document(r *http.Request) bool {
	dest := r.Header.Get("Sec-Fetch-Dest")
	return dest == "" || dest == "document"
}

// AcceptHandOver exchanges a ticket in the address of a page for a session cookie, and redirects to the same address
// without it. Requests without a ticket go to next. Put it around the pages that people arrive at, outside of Require;
// what Require serves for tickets itself must not be behind it. It panics if Options.Origin is not set.
//
// A ticket is good once: the second time it is answered 410, and ends nothing, since a reload is no theft. A ticket of
// the person who is signed in already is only taken out of the address. Another person's session is replaced; the data
// of an anonymous one is not taken along. HEAD, prefetches and what is no page of its own are answered 425 and use
// nothing up.
func (x *Auth) AcceptHandOver(next http.Handler) http.Handler {
	if x.options.Origin == "" {
		panic("httpauth: AcceptHandOver: Options.Origin is not set")
	}
	exchange := x.Optional(http.HandlerFunc(x.exchange))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, count := cutTicket(r.URL.RawQuery); count > 0 {
			exchange.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// exchange answers a request with a ticket behind Optional.
func (x *Auth) exchange(w http.ResponseWriter, r *http.Request) {
	v := x.visitOf(r.Context())
	if err := x.exchangeTicket(v, w, r); err != nil {
		x.refuse(w, r, v, nil, err)
		return
	}
	noStore(w.Header())
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, here(r), http.StatusSeeOther)
}

func (x *Auth) exchangeTicket(v *visit, w http.ResponseWriter, r *http.Request) error {
	_, text, count := cutTicket(r.URL.RawQuery)
	back := here(r)
	_, transport := v.credential()
	switch {
	case transport == bearer || count != 1:
		return x.duplicate("a ticket beside another credential in one request")
	case !usesTicket(r) || !document(r):
		return errTicketKept
	case SafeReturn(back) != back: // such as //elsewhere.example
		return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongTarget}
	}
	token := afterlogin.TokenFrom(text)
	old, _ := v.result()
	if old != nil && !old.Anonymous() {
		// A look only: whose ticket it is, used or not.
		of, err := x.authority.Validate(r.Context(), token, afterlogin.Expect{Kinds: tickets, Tenant: x.options.Tenant})
		var refused *afterlogin.Refusal
		if errors.As(err, &refused) && refused.Reason == afterlogin.ReasonUsed {
			of, err = x.authority.Session(r.Context(), refused.Session)
		}
		if err != nil && !errors.Is(err, afterlogin.ErrInvalidToken) && !errors.Is(err, afterlogin.ErrNoSession) {
			return err
		}
		if err == nil && of.Subject == old.Subject {
			return nil
		}
	}
	nonce := x.nonceOf(r)
	if nonce == "" { // a ticket that is bound to no browser would sign in whoever is sent the link
		return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongTarget}
	}
	got, err := x.authority.RedeemTicket(r.Context(), token, afterlogin.TicketUse{
		Tenant: x.options.Tenant, Target: x.options.Origin + canonical(back), Nonce: digest(nonce), Open: true, Device: v.from,
	})
	if err != nil {
		return err
	}
	if _, err := v.adopt(r, got); err != nil {
		return err
	}
	if old != nil && !old.Anonymous() && old.Kind == afterlogin.KindSession { // nobody holds its token any more
		if err := x.authority.Revoke(r.Context(), old.ID, afterlogin.ReasonSuperseded); err != nil {
			x.log.Warn("the session that a hand-over replaced was not ended", "session", old.ID, "err", err)
		}
	}
	return nil
}

var tickets = []afterlogin.Kind{afterlogin.KindTicket}
