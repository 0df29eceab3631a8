package demo

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
	"github.com/afterlogin/afterlogin/httpauth"
)

// users are the people who can sign in, and the hashes of their passwords. Both are printed on the sign-in page, so that
// a fast hash will do here; real passwords want argon2id.
var users = map[string][sha256.Size]byte{
	"mia": sha256.Sum256([]byte("demo")),
	"tom": sha256.Sum256([]byte("demo")),
}

// checkPassword reports whether the password is the user's, in a time that tells neither of the two.
func checkPassword(user, password string) bool {
	want, known := users[user]
	got := sha256.Sum256([]byte(password))
	same := subtle.ConstantTimeCompare(got[:], want[:])
	return known && same == 1
}

// displayName is what to call a subject on a page; empty for an anonymous one.
func displayName(subject string) string { return capital(subject) }

// signInBody is what the sign-in page shows.
type signInBody struct {
	Error    string
	User     string
	Remember bool
	ReturnTo string
}

// signInPage shows the form, or goes on for somebody who is signed in.
func (s *shop) signInPage(w http.ResponseWriter, r *http.Request) error {
	to := httpauth.SafeReturn(r.URL.Query().Get("return_to"))
	if session, ok := httpauth.Session(r.Context()); ok && !session.Anonymous() {
		return see(w, r, to)
	}
	return s.signInForm(w, r, http.StatusOK, signInBody{ReturnTo: to})
}

func (s *shop) signInForm(w http.ResponseWriter, r *http.Request, status int, b signInBody) error {
	v, err := s.view(r, "Sign in", "sign-in", b)
	if err != nil {
		return err
	}
	return s.render(w, status, "signin", v)
}

// signIn checks the password and makes the session. Begin comes before the check, so that a sign-out everywhere
// (because the password was changed, say) during the check wins over the sign-in.
func (s *shop) signIn(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(r); err != nil {
		return err
	}
	b := signInBody{
		User:     strings.ToLower(strings.TrimSpace(r.PostForm.Get("user"))),
		Remember: r.PostForm.Get("remember") != "",
		ReturnTo: httpauth.SafeReturn(r.PostForm.Get("return_to")),
	}
	password := r.PostForm.Get("password")
	switch {
	case b.User == "":
		b.Error = "The name is missing: mia or tom."
	case len(b.User) > 64 || len(password) > 128:
		b.User, b.Error = "", "The name or the password is too long: at most 64 and 128 characters."
	}
	if b.Error != "" {
		return s.signInForm(w, r, http.StatusUnprocessableEntity, b)
	}
	mark, err := s.auth.Begin(r, b.User)
	if err != nil {
		return err
	}
	if !checkPassword(b.User, password) {
		b.Error = "The name or the password is wrong. The demo knows mia and tom; both have the password demo."
		return s.signInForm(w, r, http.StatusUnprocessableEntity, b)
	}
	_, err = s.auth.SignIn(w, r, httpauth.SignIn{Subject: b.User, Mark: mark, Remember: b.Remember, Methods: []string{"pwd"}})
	if errors.Is(err, afterlogin.ErrStaleSignIn) {
		b.Error = "You were signed out everywhere while you were signing in. Enter the password once more."
		return s.signInForm(w, r, http.StatusConflict, b)
	}
	if err != nil {
		return err
	}
	return see(w, r, b.ReturnTo)
}

// signOut ends the session and clears the cookie.
func (s *shop) signOut(w http.ResponseWriter, r *http.Request) error {
	if err := s.auth.SignOut(w, r); err != nil {
		return err
	}
	return see(w, r, "/?signed-out")
}

// startOver drops a cookie whose session is over, and the cart that hangs on it, for those who do not want to sign in
// again. A cookie that is good is not dropped: that is what signing out is for.
func (s *shop) startOver(w http.ResponseWriter, r *http.Request) error {
	if _, ok := httpauth.Session(r.Context()); !ok {
		if err := s.auth.SignOut(w, r); err != nil {
			return err
		}
	}
	return see(w, r, "/")
}

// Limits of the page of sessions.
const (
	maxLive = 100
	maxOver = 12
)

// sessionsBody is what the page of sessions shows: where the person is signed in, the apps that are, and what is over.
type sessionsBody struct{ Live, Apps, Over []sessionView }

type sessionView struct {
	*afterlogin.Session
	Here                              bool
	Remembered                        bool
	Device, Network, Why              string
	May                               string // what an app may see
	CreatedAgo, LastSeenAgo, EndedAgo string
}

// sessions shows where the person is signed in: this device first, then by last use; then the apps, which hold a grant
// of their own; then what is over, and why.
func (s *shop) sessions(w http.ResponseWriter, r *http.Request) error {
	here, _ := httpauth.Session(r.Context())
	now := s.now()
	var b sessionsBody
	for session, err := range s.authority.Sessions(r.Context(), afterlogin.Query{Subject: here.Subject, Ended: true}) {
		if err != nil {
			return err
		}
		if !personal(session) {
			continue
		}
		v := sessionView{
			Session: session, Here: session.ID == here.ID, Remembered: session.Policy == afterlogin.PolicyRemember,
			Device: device.Name(session.Device.UserAgent), Network: network(session.Device.Addr),
			CreatedAgo: ago(now, session.Created), LastSeenAgo: ago(now, session.LastSeen),
		}
		app := session.Kind == afterlogin.KindRefresh
		if app {
			v.Device = session.Name + " (app)"
			v.May = strings.Join(slices.DeleteFunc(slices.Clone(session.Scopes), func(s string) bool { return s == "offline_access" }), ", ")
		}
		switch {
		case !session.Ended.IsZero():
			v.EndedAgo, v.Why = ago(now, session.Ended), whyEnded(session.Why)
			b.Over = append(b.Over, v)
		case app && len(b.Apps) < maxLive:
			b.Apps = append(b.Apps, v)
		case !app && (len(b.Live) < maxLive || v.Here):
			b.Live = append(b.Live, v)
		}
	}
	slices.SortFunc(b.Live, func(x, y sessionView) int {
		if x.Here != y.Here {
			if x.Here {
				return -1
			}
			return 1
		}
		return y.LastSeen.Compare(x.LastSeen)
	})
	slices.SortFunc(b.Apps, func(x, y sessionView) int { return y.LastSeen.Compare(x.LastSeen) })
	slices.SortFunc(b.Over, func(x, y sessionView) int { return y.Ended.Compare(x.Ended) })
	b.Over = b.Over[:min(len(b.Over), maxOver)]
	var n *notice
	switch {
	case r.URL.Query().Has("others"):
		n = &notice{Title: "Signed out everywhere else", Text: []string{"This device is the only one left."}}
	case r.URL.Query().Has("app"):
		n = &notice{Title: "Signed out there", Text: []string{"The app's tokens open nothing any more. It has to ask you again."}}
	case r.URL.Query().Has("one"):
		n = &notice{Title: "Signed out there", Text: []string{"The next page that is opened on that device will ask for the password."}}
	}
	return s.show(w, r, "sessions", "Where you are signed in", "sessions", b, n)
}

// personal reports whether the page of sessions is about the session: a sign-in, or an app with offline access. What
// lives below a sign-in ends with it and is not listed by itself.
func personal(session *afterlogin.Session) bool {
	return session.Kind == afterlogin.KindSession || session.Kind == afterlogin.KindRefresh && session.ID == session.Root
}

// signOutOne ends one of the person's own sessions, or an app's.
func (s *shop) signOutOne(w http.ResponseWriter, r *http.Request) error {
	here, _ := httpauth.Session(r.Context())
	other, err := s.own(r.Context(), here, afterlogin.SessionID(r.PathValue("id")))
	if errors.Is(err, afterlogin.ErrNoSession) {
		s.answer(w, r, problem{Status: http.StatusNotFound, Title: "There is no such sign-in", Text: "It is over and cleaned up, or it is not yours."})
		return nil
	}
	if err != nil {
		return err
	}
	if other.ID == here.ID {
		return s.signOut(w, r)
	}
	if err := s.authority.Revoke(r.Context(), other.ID, afterlogin.ReasonSignedOut); err != nil {
		return err
	}
	if other.Kind == afterlogin.KindRefresh {
		return see(w, r, "/account/sessions?app")
	}
	return see(w, r, "/account/sessions?one")
}

// own returns the session with the id if it is of the same person. Somebody else's is as if there were none.
func (s *shop) own(ctx context.Context, here *afterlogin.Session, id afterlogin.SessionID) (*afterlogin.Session, error) {
	other, err := s.authority.Session(ctx, id)
	if errors.Is(err, afterlogin.ErrBadSessionID) {
		return nil, afterlogin.ErrNoSession
	}
	if err != nil {
		return nil, err
	}
	if other.Subject != here.Subject || !personal(other) {
		return nil, afterlogin.ErrNoSession
	}
	return other, nil
}

// signOutOthers ends every session of the person but this one.
func (s *shop) signOutOthers(w http.ResponseWriter, r *http.Request) error {
	here, _ := httpauth.Session(r.Context())
	if err := s.authority.RevokeOthers(r.Context(), here.ID, afterlogin.ReasonSignedOutAll); err != nil {
		return err
	}
	return see(w, r, "/account/sessions?others")
}

// network says where an address is, as far as that can be said without a database.
func network(addr netip.Addr) string {
	switch addr = addr.Unmap(); {
	case !addr.IsValid():
		return "Unknown network"
	case addr.IsLoopback():
		return fmt.Sprintf("This computer (%s)", addr)
	case addr.IsPrivate(), addr.IsLinkLocalUnicast():
		return fmt.Sprintf("Local network (%s)", addr)
	}
	return addr.String()
}

// whyEnded puts the reason why a session ended into words.
func whyEnded(why afterlogin.Reason) string {
	switch why {
	case afterlogin.ReasonSignedOut:
		return "it was signed out"
	case afterlogin.ReasonSignedOutAll:
		return "everything else was signed out from another device"
	case afterlogin.ReasonReused:
		return "an out-of-date copy of this sign-in was used"
	case afterlogin.ReasonSuperseded:
		return "a later sign-in in the same browser took its place"
	case afterlogin.ReasonExpired:
		return "it had reached its greatest age"
	case afterlogin.ReasonIdle:
		return "it was not used for too long"
	case afterlogin.ReasonAdministrator:
		return "an administrator ended it"
	case afterlogin.ReasonInURL:
		return "its token stood in a web address"
	case afterlogin.ReasonRolledBack:
		return "the server had to be restored"
	}
	return string(why)
}
