package demo

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// maxForm is the greatest form that the shop reads, in bytes. Its own have a few hundred.
const maxForm = 16 << 10

// shop answers the shop's requests.
type shop struct {
	authority *afterlogin.Authority
	auth      *httpauth.Auth
	orders    *orderBook
	events    *eventLog
	policies  map[string]afterlogin.Policy
	command   string
	now       func() time.Time
	log       *slog.Logger
	mux       *http.ServeMux
}

// handler returns the shop. Everything is behind one Optional, also the pictures, as in an application that wraps its
// whole mux: a page and what it loads arrive together with one cookie, and all of it must hold when that is renewed.
func (s *shop) handler() http.Handler {
	s.mux = http.NewServeMux()
	s.mux.Handle("GET /{$}", s.page(s.catalogue))
	s.mux.Handle("GET /products/{id}", s.page(s.product))
	s.mux.Handle("GET /cart", s.page(s.cart))
	s.mux.Handle("POST /cart/items", s.page(s.addToCart))
	s.mux.Handle("POST /cart/items/{id}", s.page(s.changeQuantity))
	s.mux.Handle("POST /cart/items/{id}/remove", s.page(s.removeFromCart))
	s.mux.Handle("GET /sign-in", s.page(s.signInPage))
	s.mux.Handle("POST /sign-in", s.page(s.signIn))
	s.mux.Handle("POST /sign-out", s.page(s.signOut))
	s.mux.Handle("POST /start-over", s.page(s.startOver))
	s.mux.Handle("GET /checkout", s.auth.Require(s.page(s.checkout)))
	s.mux.Handle("POST /checkout", s.auth.Require(s.page(s.order)))
	s.mux.Handle("GET /orders", s.auth.Require(s.page(s.orderList)))
	s.mux.Handle("POST /orders/{number}/link", s.auth.Require(s.page(s.receiptLink)))
	s.mux.Handle("GET /account/sessions", s.auth.Require(s.page(s.sessions)))
	s.mux.Handle("POST /account/sessions/{id}/sign-out", s.auth.Require(s.page(s.signOutOne)))
	s.mux.Handle("POST /account/sessions/sign-out-others", s.auth.Require(s.page(s.signOutOthers)))
	s.mux.Handle("GET /static/{name}", http.HandlerFunc(s.static))
	s.mux.Handle("/", s.page(s.nowhere))
	return s.safely(s.auth.Optional(s.mux))
}

// safely sets the headers that every answer has, bounds the request, and answers for a handler that panics.
func (s *shop) safely(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.Error("a page panicked", "path", r.URL.Path, "panic", p)
				s.answer(w, r, problem{Status: http.StatusInternalServerError})
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// page turns a function that may fail into a handler.
func (s *shop) page(f func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// fail answers an error of a page.
func (s *shop) fail(w http.ResponseWriter, r *http.Request, err error) {
	var bad badInput
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &bad):
		s.answer(w, r, problem{Status: http.StatusBadRequest, Title: "That does not fit", Text: bad.Error()})
	case errors.As(err, &large):
		s.answer(w, r, tooLarge)
	default:
		s.refuse(w, r, err)
	}
}

var tooLarge = problem{
	Status: http.StatusRequestEntityTooLarge, Title: "That is too much",
	Text: fmt.Sprintf("The form is larger than %d KiB; no form of this shop is.", maxForm>>10),
}

// refuse answers an error of httpauth or of the authority: it is also Options.Refuse.
func (s *shop) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Status: httpauth.Status(err)}
	var refusal *afterlogin.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Reason == afterlogin.ReasonDuplicate:
		p.Title = "Two session cookies at once"
		p.Text = "One of them was planted, or sent by mistake, and nobody can say which. Delete this site's cookies and sign in again."
	case errors.As(err, &refusal) && refusal.Reason == afterlogin.ReasonInURL:
		p.Title = "A token stood in the address"
		p.Text = "Addresses are logged, kept in histories and sent on to other sites. If it was one of ours it is worthless now, and its session over. Sign in again."
	case errors.As(err, &refusal) && refusal.Reason == afterlogin.ReasonUsed:
		p.Title, p.Text = "This link has been used", "It was good once. Whoever gave it to you can make another."
	case errors.As(err, &refusal) && refusal.Reason == afterlogin.ReasonWrongTarget:
		p.Title, p.Text = "This link is for something else", "Its address was changed on the way. Whoever gave it to you can make another."
	case errors.As(err, &refusal):
		p.Title = "Not signed in"
		if n := s.outOfDate(r, refusal); n != nil {
			p.Title, p.Text = n.Title, strings.Join(n.Text, " ")
		}
		p.Again = "/sign-in"
	case errors.Is(err, httpauth.ErrCSRFToken):
		p.Title = "That page was out of date"
		p.Text = "It was made before you signed in or out, or before the cart was first used. Nothing was changed. Go back to it, reload it, and try again."
		p.Again = s.cameFrom(r)
	case errors.Is(err, httpauth.ErrCrossOrigin):
		p.Title = "That came from another site"
		p.Text = "Nothing was changed. If you meant it, do it here."
	case p.Status == http.StatusServiceUnavailable:
		p.Title = "One moment, please"
		p.Text = "It cannot be told now whether you are signed in. Nothing is lost and you need not sign in again: try again in a moment."
		p.Again = s.cameFrom(r)
		w.Header().Set("Retry-After", "1")
		s.log.Warn("a page was answered 503", "path", r.URL.Path, "err", err)
	case p.Status == http.StatusRequestEntityTooLarge:
		p = tooLarge // the form: a cart stays far below what a session may hold
	case p.Status == http.StatusInternalServerError:
		s.log.Error("a page failed", "path", r.URL.Path, "err", err)
	default: // what httpauth refuses before it looks at the credential; its texts are for people
		p.Title = "That request will not do"
		p.Text = strings.TrimPrefix(err.Error(), "httpauth: ")
	}
	if p.Status == http.StatusUnauthorized {
		challenge(w)
	}
	s.answer(w, r, p)
}

// challenge sets the header that RFC 9110, section 15.5.2, asks of a 401, unless httpauth has.
func challenge(w http.ResponseWriter) {
	if w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="session"`)
	}
}

// cameFrom returns the path of the page that the browser came from, or of this one.
func (s *shop) cameFrom(r *http.Request) string {
	if u, err := url.Parse(r.Referer()); err == nil && u.Host == r.Host {
		return httpauth.SafeReturn(u.RequestURI())
	}
	if r.Method == http.MethodGet {
		return httpauth.SafeReturn(r.URL.RequestURI())
	}
	return "/"
}

// nowhere answers for what the shop does not have: 404, or 405 if there is something by another method.
func (s *shop) nowhere(w http.ResponseWriter, r *http.Request) error {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := s.mux.Handler(probe); pattern != "/" {
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 || r.Method == http.MethodGet || r.Method == http.MethodHead && allow[0] == http.MethodGet {
		p := problem{Status: http.StatusNotFound, Title: "There is nothing here",
			Text: "The address has a mistake in it, or what was here is gone."}
		if len(allow) > 0 { // a form's address, opened in a browser
			p.Text = "This address takes what a form sends; there is no page here."
		}
		s.answer(w, r, p)
		return nil
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	s.answer(w, r, problem{Status: http.StatusMethodNotAllowed, Title: "Not like this",
		Text: fmt.Sprintf("This address takes %s, and the request was %.20q.", strings.Join(allow, " and "), r.Method)})
	return nil
}

// readForm parses the form. httpauth has parsed it already if there is a session.
func readForm(r *http.Request) error {
	err := r.ParseForm()
	var large *http.MaxBytesError
	if err != nil && !errors.As(err, &large) {
		return badInput{"form", "it is not URL-encoded as it should be"}
	}
	return err
}

// see sends the browser on to another page after a form.
func see(w http.ResponseWriter, r *http.Request, to string) error {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}
