package httpauth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

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
// another browser, and is over once it was seen there: nobody can sign somebody else in to his own account, and who reads
// a log finds nothing of use. The digest is what a log does show, so the secret is good for one exchange and for ten
// minutes: with an old digest nobody can make a ticket that a browser still takes.

// The names of the cookie that binds a ticket to a browser.
const (
	nonceCookie      = "__Host-Http-ticket_nonce"
	plainNonceCookie = "ticket_nonce"
	// nonceAge is for how long a hand-over may take: somebody may have to sign in on the way.
	nonceAge = 10 * time.Minute
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
// that makes the ticket: 43 characters of base64url, no secret. A browser that got the cookie less than five minutes ago
// keeps it as it is, so that two tabs do not disturb each other and no secret lives on and on. It must be called before
// the headers are written. StartHandOver calls it.
func (x *Auth) HandOverNonce(w http.ResponseWriter, r *http.Request) string {
	now := time.Now()
	value, made := x.nonceOf(r)
	if age := now.Sub(made); value == "" || age < 0 || age > nonceAge/2 {
		var b [32]byte
		rand.Read(b[:])
		value = base64.RawURLEncoding.EncodeToString(b[:]) + "." + strconv.FormatInt(now.Unix(), 10)
		x.setNonce(w, value, nonceAge)
	}
	noStore(w.Header())
	return digest(value)
}

func (x *Auth) setNonce(w http.ResponseWriter, value string, age time.Duration) {
	set := x.nonceCookie() + "=" + value + "; Path=/; Max-Age=" + strconv.Itoa(int(age/time.Second)) + "; HttpOnly; SameSite=Lax"
	if !x.options.PlainLoopback {
		set += "; Secure"
	}
	w.Header().Add("Set-Cookie", set)
}

// nonceOf returns the value of the cookie that came with the request, and when that was made; "" if there is none that
// is still good. The time in it is the browser's to forge: it would gain nothing but a secret that others know.
func (x *Auth) nonceOf(r *http.Request) (value string, made time.Time) {
	value, count, err := findCookie(r.Header["Cookie"], x.nonceCookie())
	if err != nil || count != 1 {
		return "", time.Time{}
	}
	nonce, text, _ := strings.Cut(value, ".")
	seconds, err := strconv.ParseInt(text, 10, 64)
	made = time.Unix(seconds, 0)
	if err != nil || !isNonce(nonce) || time.Since(made) > nonceAge {
		return "", time.Time{}
	}
	return value, made
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
// AcceptHandOver; a fragment of it is lost. Options.Origin must be set.
//
// The error is of what the program got wrong, and nothing is written then.
func (x *Auth) StartHandOver(w http.ResponseWriter, r *http.Request, at, returnTo string) error {
	if x.options.Origin == "" {
		return errNoOrigin
	}
	u, err := url.Parse(at)
	if err != nil || !isOrigin(u.Scheme+"://"+u.Host) || u.User != nil || strings.ContainsAny(at, "?#") {
		return fmt.Errorf("%w: StartHandOver: at is not an address such as https://accounts.example/hand-over", afterlogin.ErrBadRequest)
	}
	to, _, _ := strings.Cut(SafeReturn(returnTo), "#")
	q := url.Values{handOverTo: {x.options.Origin + to}, handOverNonce: {x.HandOverNonce(w, r)}}
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
// The address must be of an origin in Options.HandOverTo, as TicketURL has it, and nonce what HandOverNonce returned
// there. HandOver calls it; call it yourself where a person is asked first. Nothing is written if it fails.
func (x *Auth) SendOver(w http.ResponseWriter, r *http.Request, to, nonce string) error {
	v, err := x.open(r)
	if err != nil {
		return err
	}
	s, err := v.fullSession()
	if err != nil {
		return err
	}
	if !usesTicket(r) || !document(r) {
		return errTicketKept
	}
	origin, path, ok := x.elsewhere(to)
	if !ok || !isNonce(nonce) {
		return errBadHandOver
	}
	target, ok := bind(origin, path)
	if !ok {
		return errBadHandOver
	}
	got, err := x.authority.IssueTicket(r.Context(), s, afterlogin.TicketRequest{Target: target, Nonce: nonce})
	if errors.Is(err, afterlogin.ErrBadRequest) {
		return fmt.Errorf("%w: %v", errBadHandOver, err)
	}
	if err != nil {
		return err
	}
	secretAddress(w.Header())
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
// A ticket is good once: the second time it is answered 410, and ends nothing, since a reload is no theft. One that comes
// without the secret of its browser, or to another page than its own, is answered 403 and is over. A ticket of the person
// who is signed in already is only taken out of the address. Another person's session is replaced; the data of an
// anonymous one is not taken along. HEAD, prefetches and what is no page of its own are answered 425 and use nothing up.
// No answer to an address with a ticket is stored, and none lets the address out as a referrer.
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
	if value, _ := x.nonceOf(r); value != "" { // its digest stood in an address
		x.setNonce(w, "", 0)
	}
	http.Redirect(w, r, here(r), http.StatusSeeOther)
}

func (x *Auth) exchangeTicket(v *visit, w http.ResponseWriter, r *http.Request) error {
	_, text, count := cutTicket(r.URL.RawQuery)
	back := here(r)
	target, ok := bind(x.options.Origin, back)
	_, transport := v.credential()
	switch {
	case transport == bearer || count != 1:
		return x.duplicate("a ticket beside another credential in one request")
	case !usesTicket(r) || !document(r):
		return errTicketKept
	case !ok: // such as //elsewhere.example
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
	nonce, _ := x.nonceOf(r)
	if nonce == "" { // a ticket that is bound to no browser would sign in whoever is sent the link
		return x.spoil(r, token)
	}
	got, err := x.authority.RedeemTicket(r.Context(), token, afterlogin.TicketUse{
		Tenant: x.options.Tenant, Target: target, Nonce: digest(nonce), Open: true, Device: v.from,
	})
	if afterlogin.ReasonOf(err) == afterlogin.ReasonWrongTarget {
		return x.spoil(r, token)
	}
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

// spoil ends a ticket that came from another browser than its own, and returns the refusal. To the authority it would
// stay good. Only who has the ticket can do this, and then it is better over: it has been where it should not be.
func (x *Auth) spoil(r *http.Request, token afterlogin.Token) error {
	// What is over already is not written again, however often it comes.
	_, err := x.authority.Validate(r.Context(), token, afterlogin.Expect{Kinds: tickets, Tenant: x.options.Tenant})
	if err == nil {
		_, err = x.authority.RevokeToken(r.Context(), token, afterlogin.ReasonWrongTarget)
	}
	if err != nil && !errors.Is(err, afterlogin.ErrInvalidToken) {
		return err
	}
	return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongTarget}
}

var tickets = []afterlogin.Kind{afterlogin.KindTicket}
