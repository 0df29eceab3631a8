package account

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/afterlogin/afterlogin"
)

// What somebody can do.
const (
	actSignOut = "sign_out"        // one device, app or API key
	actOthers  = "sign_out_others" // every device but this one, and the apps
	actReport  = "report"          // "this wasn't me": everything, API keys too
)

// An order is what somebody wants done.
type order struct {
	Act     string               `json:"act"`
	Session afterlogin.SessionID `json:"session"`
}

// An orderError is what is wrong with how an order is written: the kind of its problem, and the key of its text.
type orderError struct {
	status int
	kind   string
	key    string
}

func (e *orderError) Error() string { return "account: " + e.key }

// readOrder reads an order from a form or from JSON. The body's size is bounded.
func readOrder(r *http.Request) (order, error) {
	var o order
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch media {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			return o, sized(err, "error.form")
		}
		for name, to := range map[string]*string{"act": &o.Act, "session": (*string)(&o.Session)} {
			if len(r.PostForm[name]) > 1 {
				return o, &orderError{http.StatusBadRequest, "invalid-request", "error.form"}
			}
			*to = r.PostForm.Get(name)
		}
	case "application/json":
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return o, sized(err, "error.json")
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil || d.More() {
			return o, &orderError{http.StatusBadRequest, "malformed-json", "error.json"}
		}
	default:
		return o, &orderError{http.StatusUnsupportedMediaType, "unsupported-media-type", "error.media"}
	}
	switch {
	case o.Act != actSignOut && o.Act != actOthers && o.Act != actReport:
		return o, &orderError{http.StatusUnprocessableEntity, "invalid-request", "error.act"}
	case o.Act == actSignOut && o.Session == "", o.Act == actOthers && o.Session != "":
		return o, &orderError{http.StatusUnprocessableEntity, "invalid-request", "error.session"}
	}
	return o, nil
}

func sized(err error, key string) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &orderError{http.StatusRequestEntityTooLarge, "body-too-large", "error.large"}
	}
	return &orderError{http.StatusBadRequest, "invalid-request", key}
}

// post carries out what a form or a program asks for.
func (v *visit) post(w http.ResponseWriter, r *http.Request, here *afterlogin.Session) {
	o, err := readOrder(r)
	if err != nil {
		v.fault(w, r, err)
		return
	}
	v.act(w, r, here, o)
}

// act carries out an order, durably, and answers.
//
// None of this asks for a sign-in that is fresh. Whoever sees a stranger in the list must be able to throw them out at
// once, with the password forgotten or at home; and a thief who signs others out has made himself known and kept nobody
// from signing in again. To ask first would keep thieves in.
func (v *visit) act(w http.ResponseWriter, r *http.Request, here *afterlogin.Session, o order) {
	var err error
	switch o.Act {
	case actSignOut:
		v.signOut(w, r, here, o.Session)
		return
	case actOthers:
		if err = v.a.o.Authority.RevokeOthers(r.Context(), here.Root, afterlogin.ReasonSignedOutAll); err == nil {
			v.done(w, r, "others")
			return
		}
	case actReport:
		if err = v.a.report(r.Context(), here, o.Session); err == nil {
			v.reported(w, r, here)
			return
		}
	}
	v.fault(w, r, err)
}

// signOut ends one of the person's own.
func (v *visit) signOut(w http.ResponseWriter, r *http.Request, here *afterlogin.Session, id afterlogin.SessionID) {
	s, err := v.a.own(r.Context(), here, id)
	if err == nil && s.Ended.IsZero() {
		err = v.a.o.Authority.Revoke(r.Context(), s.ID, afterlogin.ReasonSignedOut)
	}
	if err != nil {
		v.fault(w, r, err)
		return
	}
	if s.ID != here.Root {
		v.done(w, r, kindOf(s))
		return
	}
	// Their own device: everything below it has ended with it, this session too. Now the cookie goes.
	if err := v.site.Auth.SignOut(w, r); err != nil && !errors.Is(err, afterlogin.ErrUnavailable) {
		v.fault(w, r, err)
		return
	}
	if v.json {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	v.leave(w, r, v.site.Base+loginPath+"?reason=signed_out")
}

// report is "this wasn't me". The one that was named is ended first and by itself, so that the event of it says which it
// was; if the rest fails, the person is told that it is not done, and does it again. API keys end, too: whoever was signed
// in may have made one.
func (a *Account) report(ctx context.Context, here *afterlogin.Session, id afterlogin.SessionID) error {
	if id != "" {
		s, err := a.own(ctx, here, id)
		if err == nil && s.Ended.IsZero() && s.ID != here.Root {
			err = a.o.Authority.Revoke(ctx, s.ID, afterlogin.ReasonReported)
		}
		if err != nil {
			return err
		}
	}
	return a.o.Authority.RevokeSubject(ctx, here.Tenant, here.Subject, afterlogin.Everything, afterlogin.ReasonReported)
}

// reported sends somebody who has been signed out everywhere to the sign-in page, which says why by the cookie that is left
// and worthless, and on to the page where the password is changed.
func (v *visit) reported(w http.ResponseWriter, r *http.Request, here *afterlogin.Session) {
	to := v.site.Base + loginPath
	if v.a.o.Password != nil && v.a.o.Password(here) {
		to += "?return_to=" + url.QueryEscape(v.site.Base+passwordPath)
	}
	if v.json {
		v.write(w, http.StatusOK, struct {
			SignIn string `json:"sign_in"`
		}{to})
		return
	}
	v.leave(w, r, to)
}

// leave sends the browser to another page of the site.
func (v *visit) leave(w http.ResponseWriter, r *http.Request, to string) {
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// done says that something was done: to a program nothing more, to a browser with the list.
func (v *visit) done(w http.ResponseWriter, r *http.Request, what string) {
	if v.json {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	to := v.site.Base + sessionsPath + "?done=" + what
	if v.embed {
		to += "&embed=1"
	}
	v.leave(w, r, to)
}
