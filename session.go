package afterlogin

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A Kind is a kind of credential. A token of one kind is never accepted as another.
type Kind byte

// The kinds.
const (
	KindSession Kind = 's' // a browser session or a signed-in device
	KindAPIKey  Kind = 'k' // a machine's key
)

// String returns the kind's name: "session" or "api_key".
func (k Kind) String() string {
	switch k {
	case KindSession:
		return "session"
	case KindAPIKey:
		return "api_key"
	}
	return "unknown"
}

// handle is the prefix of the kind's public ids.
func (k Kind) handle() string {
	if k == KindAPIKey {
		return "key_"
	}
	return "ses_"
}

// A SessionID is the public handle of a session (ses_…) or an API key (key_…). It is no secret: it may stand in logs,
// lists and URLs, and it opens nothing. It stays the same when the token is renewed, and changes at sign-in.
type SessionID string

// ErrBadSessionID is returned for text that is not a session's handle.
var ErrBadSessionID = errors.New("not a session id: want ses_ or key_ and 23 characters")

func newSessionID(k Kind, id store.ID) SessionID {
	var buf [32]byte
	return SessionID(k.handle() + base64.RawURLEncoding.EncodeToString(id.Append(buf[:0])))
}

func (id SessionID) parse() (store.ID, error) {
	text, ok := strings.CutPrefix(string(id), "ses_")
	if !ok {
		text, ok = strings.CutPrefix(string(id), "key_")
	}
	if !ok || len(text) != 23 || strings.ContainsAny(text, "\r\n") {
		return store.ID{}, ErrBadSessionID
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return store.ID{}, ErrBadSessionID
	}
	sid, err := store.ParseID(b)
	if err != nil || !sid.IsRoot() {
		return store.ID{}, ErrBadSessionID
	}
	return sid, nil
}

// A Session is what the authority knows about one sign-in of a subject on one device, or about one API key. It never
// holds a secret. It is a snapshot; its slices are shared and must not be changed.
type Session struct {
	ID      SessionID
	Kind    Kind
	Tenant  uint32
	Subject string // the application's name for the person or machine; empty while anonymous
	Client  string // the OAuth client it was made for, if any
	Name    string // what people call it: an API key's label
	Policy  string // the name of the policy it lives by
	// Persistent says that the policy lets the browser keep the cookie after it was closed.
	Persistent bool

	Created  time.Time
	LastSeen time.Time // when it was last used, to within a minute
	// Absolute is when it ends whatever happens. Zero for an API key without an end.
	Absolute time.Time
	// Idle is when it ends if it is not used. Zero for an API key, which has no idle limit.
	Idle time.Time

	Auth       Authentication
	Scopes     []string
	Device     Client // where it was made
	Generation uint32 // how often the token has been renewed, and one
	Renewed    time.Time

	// Ended is set on sessions from a list that are over: when, and why. Validate never returns one. When the time is
	// not known exactly, it is the time of the look.
	Ended time.Time
	Why   Reason

	record  store.ID
	renewal bool
	lost    bool // the token is out of date by a lost answer
}

// Anonymous reports whether nobody has signed in: the session only keeps data.
func (s *Session) Anonymous() bool { return s.Subject == "" }

// RenewalDue reports whether the answer to this request should carry a renewed token, if it can: call Authority.Renew
// when the response headers are written. It says nothing to be told to the client.
func (s *Session) RenewalDue() bool { return s.renewal }

// Authentication says how and when the person proved who they are. The application vouches for it.
type Authentication struct {
	Methods []string  // RFC 8176 names: pwd, otp, hwk, …
	At      time.Time // when; the time of Issue if zero
}

// has reports whether every wanted scope is among the session's.
func has(scopes, want []string) bool {
next:
	for _, w := range want {
		for _, s := range scopes {
			if s == w {
				continue next
			}
		}
		return false
	}
	return true
}
