package login

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// An Identity is who has just proved who they are, and how.
type Identity struct {
	// Subject is what the session is for: a built-in user's name, or a provider's ID, a colon and its sub.
	Subject string
	// Mark was taken by Authority.Begin for the Subject before the proof was looked at. It may be zero.
	Mark afterlogin.Mark
	// Methods are RFC 8176 names. The class of the authentication may stand among them, as afterlogin.ACRMethod has it, or in
	// ACR.
	Methods []string
	ACR     string
	// At is when they did; now, if zero.
	At     time.Time
	Scopes []string
	// Remember makes a session that outlives the browser's window.
	Remember bool
	// Confirm says that the person of the request's session was asked once more: the session stays, whatever its scopes. For
	// anybody else than that person it is ErrOther.
	Confirm bool
	// Device is the new value of the browser's device cookie (users.Verified), "" if it stays.
	Device string
}

// ErrOther is returned by SignIn if Identity.Confirm is set, and the request's session is not of Identity.Subject.
var ErrOther = errors.New("somebody else than the person of the session has confirmed who they are")

// SignIn is the one path to a session after somebody has proved who they are, wherever that was: the request's session is
// stepped up if it is theirs already and would not be another one (its scopes, and whether it is remembered), and a new
// session is made otherwise. It has the answer set the cookie, and writes nothing. The request must have come through
// site.Auth.Optional.
//
// Errors: ErrOther, and those of httpauth's SignIn and StepUpSince. Fail writes an answer to each.
func (l *Login) SignIn(w http.ResponseWriter, r *http.Request, site *Site, id Identity) (*afterlogin.Session, error) {
	id.Remember = id.Remember && !l.o.NoRemember // anybody can write remember=1
	methods := slices.Clone(id.Methods)
	if id.ACR != "" {
		methods = append(methods, afterlogin.ACRMethod(id.ACR))
	}
	had := session(r)
	var s *afterlogin.Session
	var err error
	switch {
	case id.Confirm && (had == nil || had.Subject != id.Subject):
		return nil, ErrOther
	case had != nil && had.Subject == id.Subject &&
		(id.Confirm || had.Persistent == id.Remember && slices.Equal(had.Scopes, id.Scopes)):
		s, err = site.Auth.StepUpSince(w, r, id.Mark, afterlogin.Authentication{Methods: methods, At: id.At})
	default:
		s, err = site.Auth.SignIn(w, r, httpauth.SignIn{
			Subject: id.Subject, Mark: id.Mark, Remember: id.Remember, Methods: methods, At: id.At, Scopes: id.Scopes,
		})
	}
	if err != nil {
		return nil, err
	}
	if id.Device != "" {
		setDevice(w, site, id.Device)
	}
	return s, nil
}

// Complete is SignIn, and answers: with a redirect (303) to returnTo, if that is a path of the site or an address of
// another configured origin, else to where people go by default; or with a page that says what went wrong.
func (l *Login) Complete(w http.ResponseWriter, r *http.Request, site *Site, id Identity, returnTo string) {
	prepare(w.Header())
	if _, err := l.SignIn(w, r, site, id); err != nil {
		l.Fail(w, r, site, err)
		return
	}
	l.Leave(w, r, site, returnTo)
}

// Fail answers with a page that says what went wrong with a sign-in: an error of SignIn.
func (l *Login) Fail(w http.ResponseWriter, r *http.Request, site *Site, err error) {
	prepare(w.Header())
	switch {
	case errors.Is(err, ErrOther):
		l.message(w, r, site, http.StatusConflict, "This is another account", "You confirmed who you are with another account than the one you are signed in with. Go back and use the same one, or sign out first.")
	case errors.Is(err, afterlogin.ErrStaleSignIn):
		l.message(w, r, site, http.StatusConflict, "Sign in again", staleText)
	case errors.Is(err, afterlogin.ErrSessionLimit):
		l.message(w, r, site, http.StatusConflict, "You are signed in elsewhere", httpauth.Message(err))
	case errors.Is(err, afterlogin.ErrInvalidToken):
		l.message(w, r, site, http.StatusConflict, "Sign in again", "Your sign-in ended while you confirmed who you are.")
	default:
		l.fault(w, r, site, err)
	}
}

const staleText = "Your password was changed, or you were signed out everywhere, while you were signing in."

// session returns the request's session if somebody is signed in with it, and nil otherwise.
func session(r *http.Request) *afterlogin.Session {
	s, ok := httpauth.Session(r.Context())
	if !ok || s.Anonymous() || s.Kind != afterlogin.KindSession {
		return nil
	}
	return s
}
