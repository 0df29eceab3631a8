package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/inurl"
)

// backChannel answers the requests of programs: POST, a form in the body, nothing in the URL.
func (s *Server) backChannel(w http.ResponseWriter, r *http.Request, serve func(context.Context, http.ResponseWriter, *http.Request, form) *Error) {
	ctx := r.Context()
	if r.URL.Path != IntrospectPath { // which is asked most; each of its reads of the store has the same limit, see requestTimeout
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	f, e := s.readForm(ctx, w, r)
	if e == nil {
		e = serve(ctx, w, r, f)
	}
	if e != nil {
		s.log.DebugContext(ctx, "refused", "path", r.URL.Path, "error", e.Code, "why", e.Description)
		e.write(w)
	}
}

// readForm reads the parameters of a POST, and lets nothing through that could mean two things.
func (s *Server) readForm(ctx context.Context, w http.ResponseWriter, r *http.Request) (form, *Error) {
	if e := s.tokenInURL(ctx, r); e != nil {
		return nil, e
	}
	if r.Method != http.MethodPost {
		return nil, &Error{Code: InvalidRequest, Description: "this takes POST", Status: http.StatusMethodNotAllowed, allow: http.MethodPost}
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		// Logs keep URLs: what stood there is no secret any more (RFC 6749, 2.3.1).
		return nil, fail(InvalidRequest, "parameters belong into the body, and nothing into the URL; if a secret stood there, change it")
	}
	if e := checkContent(r.Header); e != nil {
		return nil, e
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	var body []byte
	var err error
	if n := r.ContentLength; n >= 0 {
		body = make([]byte, n)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge()
	case err != nil:
		return nil, fail(InvalidRequest, "the body could not be read to its end")
	}
	return parseForm(string(body))
}

func tooLarge() *Error {
	return &Error{Code: InvalidRequest, Description: "the body is over 64 KiB", Status: http.StatusRequestEntityTooLarge}
}

// checkContent wants a form. The plain case costs no parsing.
func checkContent(h http.Header) *Error {
	types := h["Content-Type"]
	if len(types) != 1 || types[0] != "application/x-www-form-urlencoded" {
		media, params, err := "", map[string]string(nil), error(nil)
		if len(types) == 1 {
			media, params, err = mime.ParseMediaType(types[0])
		}
		charset, has := params["charset"]
		if err != nil || media != "application/x-www-form-urlencoded" || has && !strings.EqualFold(charset, "utf-8") {
			return fail(InvalidRequest, "the body must be a form: send Content-Type: application/x-www-form-urlencoded")
		}
	}
	if len(h["Content-Encoding"]) > 0 {
		return fail(InvalidRequest, "the body must not be compressed")
	}
	return nil
}

// forbidden are the kinds of tokens that must not stand in a URL: all but authorization codes and tickets.
const forbidden = "skra"

// tokenInURL refuses a request whose URL holds a token, and ends what the token stands for.
func (s *Server) tokenInURL(ctx context.Context, r *http.Request) *Error {
	found := inurl.Find(r.URL.RawQuery, forbidden)
	if found == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s.log.WarnContext(ctx, "a token stood in a URL", "path", r.URL.Path)
	e := afterlogin.Event{Type: afterlogin.EventInURL, Reason: afterlogin.ReasonInURL, Detail: "a token stood in a URL; it is not one of ours"}
	for _, t := range found {
		id, err := s.authority.RevokeToken(ctx, afterlogin.TokenFrom(t), afterlogin.ReasonInURL)
		switch {
		case err == nil:
			e.Session, e.Detail = id, "a token stood in a URL; it was ended"
		case !errors.Is(err, afterlogin.ErrInvalidToken):
			return s.fault(ctx, err) // not ended yet; it will be at the next try
		}
	}
	s.authority.Report(e)
	return fail(InvalidRequest, "a token stands in the URL, where logs keep it; if it was one of ours it is ended now")
}

// document answers with something that everybody may read and keep for a while.
func (s *Server) document(w http.ResponseWriter, r *http.Request, media string, b []byte) {
	if e := s.tokenInURL(r.Context(), r); e != nil {
		e.write(w)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		(&Error{Code: InvalidRequest, Description: "this takes GET", Status: http.StatusMethodNotAllowed, allow: "GET, HEAD"}).write(w)
		return
	}
	w.Header().Del("Pragma")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(keysMaxAge.Seconds())))
	writeBytes(w, http.StatusOK, media, b)
}

// remote is the address of the connection.
func remote(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}
