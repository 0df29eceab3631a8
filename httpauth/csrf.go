package httpauth

import (
	"errors"
	"mime"
	"net/http"

	"github.com/afterlogin/afterlogin"
)

// Where a CSRF token is looked for.
const (
	// CSRFHeader is the header that carries the CSRF token of requests made by scripts.
	CSRFHeader = "X-Csrf-Token"
	// CSRFField is the field of URL-encoded forms that carries it.
	CSRFField = "csrf_token"
)

// maxForm is the greatest form whose CSRF token is looked for in its body, in bytes.
const maxForm = 1 << 20

// CSRFToken returns the CSRF token of the request's session, for a hidden field named CSRFField in every form that
// posts, the sign-in form too. It is "" without a session: then there is nothing to protect. It stays the same when the
// session's token is renewed and changes at sign-in.
func (x *Auth) CSRFToken(r *http.Request) string {
	v := x.visitOf(r.Context())
	if v == nil {
		return ""
	}
	s, _ := v.result()
	if s == nil {
		return ""
	}
	return x.authority.CSRFToken(s)
}

// checkOrigin refuses what a page of another site has a browser send: requests that could change something, and
// upgrades, since a WebSocket is opened by a GET and CORS does not apply to it. A request with a credential that
// browsers do not attach by themselves needs no check: a page that can attach it has passed CORS.
func (x *Auth) checkOrigin(v *visit, r *http.Request) error {
	if !unsafe(r.Method) {
		if !opens(r) {
			return nil
		}
		c := *r
		c.Method = http.MethodPost
		r = &c
	}
	_, transport := v.credential()
	if transport == bearer || transport == apiKeyHeader || transport == ticket || transport == none && len(r.Header["X-Api-Key"]) > 0 {
		return nil
	}
	if x.origins.Check(r) != nil {
		return ErrCrossOrigin
	}
	return nil
}

// opens reports whether the request opens a WebSocket, or something like it. Proxies that ask before they forward often
// leave Upgrade out of the question, since it is about one connection, and the rest in.
func opens(r *http.Request) bool {
	return len(r.Header["Upgrade"]) > 0 || len(r.Header["Sec-Websocket-Key"]) > 0 || len(r.Header["Sec-Websocket-Version"]) > 0
}

// checkCSRF refuses a request that does not carry the session's CSRF token. w is the server's writer.
func (x *Auth) checkCSRF(s *afterlogin.Session, r *http.Request, w http.ResponseWriter) error {
	if h := r.Header[CSRFHeader]; len(h) > 0 {
		return x.checkCSRFToken(s, h)
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || r.Body == nil {
		return ErrCSRFToken
	}
	if r.PostForm == nil && (r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				return errFormTooLarge
			}
			return errBadForm
		}
	}
	return x.checkCSRFToken(s, r.PostForm[CSRFField])
}

// checkCSRFToken refuses any but exactly one token, the session's.
func (x *Auth) checkCSRFToken(s *afterlogin.Session, tokens []string) error {
	if len(tokens) != 1 {
		return ErrCSRFToken
	}
	switch ok, err := x.authority.CheckCSRF(s, tokens[0]); {
	case err != nil:
		return err
	case !ok:
		return ErrCSRFToken
	}
	return nil
}
