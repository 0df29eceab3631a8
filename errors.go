package afterlogin

import (
	"errors"
	"fmt"
	"time"
)

// A Reason says why a token was refused or a session ended. The texts are stable; programs may branch on them.
type Reason string

// Why a token is refused.
const (
	ReasonMalformed     Reason = "malformed"      // not a token at all
	ReasonWrongKind     Reason = "wrong_kind"     // a token, but of a kind that is not accepted here
	ReasonForged        Reason = "forged"         // not issued by this installation, or altered
	ReasonUnknown       Reason = "unknown"        // issued here, but there is no such session (any more)
	ReasonRevoked       Reason = "revoked"        // ended on purpose; Refusal.Cause says by what
	ReasonSignedOutAll  Reason = "signed_out_all" // ended with the subject's other sessions
	ReasonSuperseded    Reason = "superseded"     // a sign-in or a step-up has replaced it
	ReasonExpired       Reason = "expired"        // its absolute lifetime is over
	ReasonIdle          Reason = "idle"           // not used for too long
	ReasonWrongTenant   Reason = "wrong_tenant"   // of another tenant
	ReasonWrongClient   Reason = "wrong_client"   // of another OAuth client
	ReasonWrongAudience Reason = "wrong_audience" // made for another service
	ReasonWrongNetwork  Reason = "wrong_network"  // an API key used from where it may not be
	ReasonWrongTarget   Reason = "wrong_target"   // a ticket for another address, or another browser's
	ReasonUsed          Reason = "used"           // a code or a ticket that was redeemed before
	ReasonReused        Reason = "reused"         // out of date, and used again: by a copy
	ReasonRenew         Reason = "renew"          // out of date by a lost answer; only a path that can set it may renew it
	ReasonRolledBack    Reason = "rolled_back"    // newer than the store's: the store has lost changes
	ReasonScope         Reason = "scope"          // does not have the scope that is asked for
	ReasonStaleAuth     Reason = "stale_auth"     // signed in too long ago for this; ask for the password again
	ReasonStaleSignIn   Reason = "stale_sign_in"  // signed out everywhere while the sign-in was under way
	ReasonDuplicate     Reason = "duplicate"      // two credentials in one request
	ReasonInURL         Reason = "token_in_url"   // stood in a URL, where others can read it
	ReasonSignedOut     Reason = "signed_out"     // the person signed out
	ReasonAdministrator Reason = "administrator"  // somebody with the right to do so ended it
	// Why all or all other sessions of a subject were ended, besides ReasonSignedOutAll.
	ReasonPasswordChanged Reason = "password_changed" // the password was changed on another device
	ReasonReported        Reason = "reported"         // the person said of a session that it was not them

	ReasonNotMade      Reason = "not_made"      // its sign-in failed while it was made: nobody ever held its token
	ReasonLimit        Reason = "session_limit" // ended to make room: a subject may have so many and no more
	ReasonFrozen       Reason = "frozen"        // on hold until somebody with the right to do so decides; see Freeze
	ReasonOrigin       Reason = "origin_ended"  // the session it came from was ended with all that came from it
	ReasonNoCredential Reason = "no_credential" // the request carried none
	ReasonRestored     Reason = "restored"      // the store was restored from a backup, and what has changed since is not known
	ReasonUnreadable   Reason = "unreadable"    // its record does not open: changed outside, or its key is gone
)

// Errors of the authority.
var (
	// ErrInvalidToken is every refusal of a token: errors.Is(err, ErrInvalidToken) means "no", for whatever reason.
	// ReasonOf says which.
	ErrInvalidToken = errors.New("invalid token")
	// ErrUnavailable means that the answer is not known now: the store cannot be reached, or does not open. It is
	// neither a yes nor a no. Answer 503 with Retry-After, keep the cookie, try again.
	ErrUnavailable = errors.New("temporarily unavailable")
	// ErrOnHold is returned by Freeze: it is on hold already, for another reason.
	ErrOnHold = errors.New("on hold for another reason")
	// ErrStaleSignIn is returned by Issue: the subject's sessions were ended after Begin, so the password that was just
	// checked may be the old one. Check it again.
	ErrStaleSignIn = errors.New("sign-in is stale: the subject was signed out everywhere meanwhile")
	// ErrNoSession is returned for a session id that names nothing.
	ErrNoSession = errors.New("no such session")
	// ErrDataConflict is returned by a compare-and-set of session data whose version is not the current one.
	ErrDataConflict = errors.New("session data has changed")
	// ErrBadRequest is a request that breaks the rules of its call: a mistake of the program's. The text says which.
	ErrBadRequest = errors.New("bad request")
)

// A Refusal is the error of a token that is not accepted. It is ErrInvalidToken.
type Refusal struct {
	Reason Reason
	// Cause is why the session was ended or put on hold, if Reason is ReasonRevoked, ReasonSignedOutAll or ReasonFrozen
	// and it is known.
	Cause Reason
	// Session is the session that the token belongs to, if that is known. It may stand in logs.
	Session SessionID
	// At is when the session was ended, if it was.
	At time.Time
	// Recent says of a token that was superseded that it was so a moment ago: the client has a better one by now, and
	// this request was under way.
	Recent bool
}

func (r *Refusal) Error() string {
	if r.Cause != "" {
		return fmt.Sprintf("invalid token: %s (%s)", r.Reason, r.Cause)
	}
	return "invalid token: " + string(r.Reason)
}

// Unwrap makes every refusal ErrInvalidToken.
func (r *Refusal) Unwrap() error { return ErrInvalidToken }

// ReasonOf returns the reason of a refusal, and "" for any other error.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

// Message returns what to tell the person whose session ended for this reason, in plain words, or "" if there is
// nothing to tell: a token that is not ours, or that never was a session's, gets no explanation.
func (r *Refusal) Message() string {
	if r.Reason == ReasonFrozen { // whatever it was put on hold for
		return "This sign-in is on hold. Ask whoever runs this site."
	}
	why := r.Reason
	if r.Cause != "" {
		why = r.Cause
	}
	switch why {
	case ReasonSignedOut:
		return "You signed out, here or from another device."
	case ReasonPasswordChanged:
		return "You were signed out because your password was changed on another device."
	case ReasonReported:
		return "You were signed out on all devices because one of your sign-ins was reported as not yours. Change your password when you have signed in."
	case ReasonLimit:
		return "You were signed out here to make room: you signed in elsewhere, and only so many devices can be signed in at once."
	case ReasonOrigin:
		return "You were signed out because the sign-in that this one came from was ended."
	case ReasonReused:
		return "This sign-in was ended because an out-of-date copy of it was used. A restored browser can do that; so can somebody who copied it."
	case ReasonExpired, ReasonIdle:
		return "You were signed out because this sign-in was too old or not used for a while."
	case ReasonSignedOutAll:
		return "You were signed out on all devices."
	case ReasonAdministrator:
		return "This sign-in was ended by an administrator."
	case ReasonInURL:
		return "This sign-in was ended because its token stood in a web address, where others can read it."
	case ReasonRolledBack, ReasonRestored:
		return "This sign-in was ended because the server had to be restored."
	case ReasonSuperseded: // the same browser has a better one
		return ""
	}
	switch r.Reason { // ended for a reason of the application's own
	case ReasonRevoked:
		return "This sign-in was ended."
	case ReasonSignedOutAll:
		return "You were signed out on all devices."
	}
	return ""
}

// refuse makes the refusals that need no session. They are shared: a flood of junk allocates nothing.
func refuse(r Reason) error { return junk[r] }

var junk = map[Reason]error{
	ReasonMalformed: &Refusal{Reason: ReasonMalformed},
	ReasonWrongKind: &Refusal{Reason: ReasonWrongKind},
	ReasonForged:    &Refusal{Reason: ReasonForged},
	ReasonUnknown:   &Refusal{Reason: ReasonUnknown},
}

// unavailable wraps what went wrong below, so that callers see ErrUnavailable and logs see why.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

func badRequest(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadRequest}, args...)...)
}
