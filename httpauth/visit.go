package httpauth

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A visit is one request on its way through the middleware: what is known of its credential, and what its answer is to
// carry. It is also the context that the handler sees, and holds the writer, so that a request costs one allocation.
type visit struct {
	context.Context // of the request as it came in

	auth     *Auth
	w        writer
	from     afterlogin.Client
	mayRenew bool // the request is one whose answer may carry a renewed cookie
	proven   bool // the CSRF token was checked
	inLink   bool // a ticket stands in the address
	refused  bool // Options.Refuse answers, and the error is logged
	done     bool // the handler returned, rather than panicked

	// mu guards the rest: http.TimeoutHandler answers while the handler still runs. It is not held across a call of the
	// authority.
	mu        sync.Mutex
	token     afterlogin.Token
	transport transport
	beside    afterlogin.Token    // the session cookie, if transport is ticket: it decides if that is refused
	changed   bool                // the token is not the one that came
	apiKeys   bool                // X-Api-Key was looked at
	jwts      bool                // the cookie with a JWT was looked at
	tickets   bool                // the parameter ticket was looked at
	redeemed  *afterlogin.Session // that the ticket, which is used up, let in
	session   *afterlogin.Session
	refusal   *afterlogin.Refusal
	setCookie string // the Set-Cookie that the answer is to carry; empty: none
	clearData bool
	committed bool // the headers are out
}

// transport is how a credential came.
type transport uint8

const (
	none transport = iota
	cookie
	bearer
	apiKeyHeader
	jwtCookie
	ticket
)

type visitKey struct{}

// Value makes the visit found in its own context.
func (v *visit) Value(key any) any {
	if _, ok := key.(visitKey); ok {
		return v
	}
	if k, ok := key.(authKey); ok && k.auth == v.auth {
		return v
	}
	return v.Context.Value(key)
}

// authKey finds the visit of one Auth among those of several that a request has come through.
type authKey struct{ auth *Auth }

// String keeps what a visit holds out of printed contexts.
func (v *visit) String() string { return "httpauth.visit" }

func (x *Auth) visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil || v.auth == x {
		return v
	}
	v, _ = ctx.Value(authKey{x}).(*visit)
	return v
}

// errOutside is a mistake of the program's.
var errOutside = errors.New("httpauth: the request has not come through Optional or Require of this Auth")

// ErrHeadersWritten is returned when a cookie would have to be set, but the headers of the answer are already written.
// Nothing has changed; only if they were written while the cookie's session was being made, by a time limit, a step-up
// has happened without its cookie, and the person has to sign in again.
var ErrHeadersWritten = errors.New("httpauth: the headers are already written: sign in, step up and make sessions before the first byte of the answer")

// outside logs a mistake that would otherwise show as a bare 500, and returns its error.
func (x *Auth) outside(r *http.Request) error {
	x.log.Error("a handler is not behind Optional or Require", "method", r.Method, "path", r.URL.Path)
	return errOutside
}

// open returns the request's visit, if its answer can still carry a cookie.
func (x *Auth) open(r *http.Request) (*visit, error) {
	v := x.visitOf(r.Context())
	if v == nil {
		return nil, x.outside(r)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.committed {
		return nil, ErrHeadersWritten
	}
	return v, nil
}

func (v *visit) result() (*afterlogin.Session, *afterlogin.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.session, v.refusal
}

func (v *visit) found(s *afterlogin.Session, refusal *afterlogin.Refusal) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.session, v.refusal = s, refusal
}

func (v *visit) credential() (afterlogin.Token, transport) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.token, v.transport
}

// searchAgain notes where else credentials are looked for from now on, and reports whether the request must be searched
// again for that.
func (v *visit) searchAgain(n *need) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	more := n.apiKeys() && !v.apiKeys || n.jwts() && !v.jwts || n.tickets() && !v.tickets
	v.apiKeys, v.jwts, v.tickets = v.apiKeys || n.apiKeys(), v.jwts || n.jwts(), v.tickets || n.tickets()
	return more && !v.changed
}

// adopt makes the issued session that of the request from now on, and its token the cookie of the answer. If it is too
// late for that, a session that was made for it is ended: nobody will ever hold its token.
func (v *visit) adopt(r *http.Request, got afterlogin.Issued) (*afterlogin.Session, error) {
	set := v.auth.cookieFor(got.Token, got.Session)
	v.auth.warnPlain(r)
	v.mu.Lock()
	late := v.committed
	if !late {
		v.session, v.refusal = got.Session, nil
		v.token, v.transport, v.changed = got.Token, cookie, true
		v.setCookie = set
	}
	v.mu.Unlock()
	if late { // a time limit answered meanwhile
		if got.Session.Generation > 1 { // a step-up: the session is the person's own
			return nil, ErrHeadersWritten
		}
		if err := v.auth.authority.Revoke(r.Context(), got.Session.ID, afterlogin.ReasonSuperseded); err != nil {
			return nil, errors.Join(ErrHeadersWritten, err)
		}
		return nil, ErrHeadersWritten
	}
	return got.Session, nil
}

// cookieFor returns the Set-Cookie that gives the browser the token.
func (x *Auth) cookieFor(t afterlogin.Token, s *afterlogin.Session) string {
	set := x.cookieName + "=" + t.Reveal() + x.attributes
	if s.Persistent {
		// Counted from when the token was made, by the authority's clock, which need not be this machine's.
		left := max(int64(s.Absolute.Sub(s.Renewed)/time.Second), 1)
		set += "; Max-Age=" + strconv.FormatInt(left, 10)
	}
	return set
}

// commit is called once, before the headers of the answer are written: the moment at which a token is renewed.
func (v *visit) commit(status int) {
	v.mu.Lock()
	if v.committed {
		v.mu.Unlock()
		return
	}
	v.committed = true
	set, clearData := v.setCookie, v.clearData
	s, token, redeemed := v.session, v.token, v.redeemed
	vary := varyAll
	if v.apiKeys {
		vary = varyWithKey
	}
	renew := set == "" && s != nil && v.transport == cookie && v.mayRenew && s.RenewalDue() &&
		// A cache copies the headers of a 304 into what it has stored (RFC 9111, section 3.2).
		status != http.StatusNotModified && status != http.StatusSwitchingProtocols
	v.mu.Unlock()

	if renew {
		set = v.auth.renew(v, token, s)
	}
	h := v.w.ResponseWriter.Header()
	if have, ok := h["Vary"]; ok {
		vary = append(have[:len(have):len(have)], vary...)
	}
	h["Vary"] = vary
	switch {
	case set != "":
		v.auth.addCookie(h, set)
	case s != nil && len(h["Cache-Control"]) == 0 && len(h["Expires"]) == 0:
		h["Cache-Control"] = private
	}
	if v.inLink { // whatever the handler chose
		secretAddress(h)
		if redeemed != nil {
			h["Cache-Control"] = []string{"private, no-store"}
		}
	}
	if clearData {
		h.Set("Clear-Site-Data", v.auth.clearData)
	}
}

// renewTimeout bounds how long an answer waits for the renewal of its cookie.
const renewTimeout = 3 * time.Second

// renew returns the Set-Cookie with the renewed token, or "" if there is none.
func (x *Auth) renew(v *visit, t afterlogin.Token, s *afterlogin.Session) string {
	ctx, cancel := context.WithTimeout(v.Context, renewTimeout)
	defer cancel()
	got, err := x.authority.Renew(ctx, t, s, v.from)
	if err != nil {
		x.log.Debug("a token was not renewed; the next answer will do it", "err", err)
		return ""
	}
	if got.Token.IsZero() {
		return ""
	}
	return x.cookieFor(got.Token, got.Session)
}

// addCookie adds our Set-Cookie, in place of any other of its name, and keeps every cache from storing the answer.
func (x *Auth) addCookie(h http.Header, set string) {
	kept := h["Set-Cookie"][:0:0]
	for _, c := range h["Set-Cookie"] {
		if name, _, _ := strings.Cut(c, "="); strings.TrimSpace(name) != x.cookieName {
			kept = append(kept, c)
		}
	}
	h["Set-Cookie"] = append(kept, set)
	noStore(h)
}

// noStore says Cache-Control: no-store, and takes out the headers that some caches obey instead (RFC 9213).
func noStore(h http.Header) {
	h["Cache-Control"] = []string{"no-store"}
	delete(h, "Expires")
	delete(h, "Pragma")
	for name := range h {
		if strings.HasSuffix(name, "Cdn-Cache-Control") || name == "Surrogate-Control" {
			delete(h, name)
		}
	}
}

// secretAddress keeps the address of the request, which a ticket stands in, and its answer from going anywhere else.
func secretAddress(h http.Header) {
	noStore(h)
	h["Referrer-Policy"] = []string{"no-referrer"}
}

// Values of headers that most answers carry: who may keep the answer, and what it depends on. They are shared: whoever
// adds to one gets a copy, as there is no room.
var (
	private     = []string{"private, no-cache"}
	varyAll     = []string{"Authorization, Cookie"}
	varyWithKey = []string{"Authorization, Cookie, X-Api-Key"}
)

// leave is deferred while the handler runs. out is the request as it came, in as the handler saw it.
func (v *visit) leave(out, in *http.Request) {
	if out.MultipartForm == nil {
		out.MultipartForm = in.MultipartForm // whose files the server removes
	}
	if v.done {
		v.commit(http.StatusOK) // if nothing was written: the server writes the headers when we return
		return
	}
	// The handler panicked. If somebody outside answers for it, a session that was made must not be lost.
	v.mu.Lock()
	set := v.setCookie
	if v.committed {
		set = ""
	}
	v.committed = true
	v.mu.Unlock()
	if set != "" {
		v.auth.addCookie(v.w.ResponseWriter.Header(), set)
	}
}

// writer is the http.ResponseWriter that handlers see. It flushes and reads from files as a server's does; everything
// else that the server's can is found by http.ResponseController through Unwrap.
type writer struct {
	http.ResponseWriter
	visit *visit
}

// Unwrap returns the server's writer.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader renews the token, if it is due, and writes the headers. Informational answers (1xx) pass as they are.
func (w *writer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.visit.commit(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.visit.commit(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

func (w *writer) WriteString(s string) (int, error) {
	w.visit.commit(http.StatusOK)
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets the server use sendfile.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	w.visit.commit(http.StatusOK)
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(justWriter{w.ResponseWriter}, r)
}

type justWriter struct{ io.Writer }

// Flush is FlushError for those who do not ask.
func (w *writer) Flush() { w.FlushError() }

// FlushError sends the headers, and what was written so far. http.ErrNotSupported means that the server cannot.
func (w *writer) FlushError() error {
	w.visit.commit(http.StatusOK)
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack takes the connection over from the server. From then on there is no answer that could carry a cookie.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.visit.mu.Lock()
		w.visit.committed = true
		w.visit.mu.Unlock()
	}
	return conn, rw, err
}
