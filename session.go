package afterlogin

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
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
	KindRefresh Kind = 'r' // a refresh token, which stands for an OAuth grant
	KindAccess  Kind = 'a' // an opaque access token
	KindCode    Kind = 'c' // an authorization code
	KindTicket  Kind = 't' // a one-time ticket, the only token that may stand in a URL
	// KindJWT is a signed token that says of itself what it is good for. It has no record: it is as good as the session
	// or grant it was made from.
	KindJWT Kind = 'j'
	// KindClient is a registered OAuth client. It is a root without a token: what it presents is a secret of its own.
	KindClient Kind = 'o'
	// KindEntry is a named record that is no credential; see Entry.
	KindEntry Kind = 'e'
)

// kinds says of each kind what it is called, what its public ids begin with, and what its events are about.
var kinds = map[Kind]struct{ name, handle, event string }{
	KindSession: {"session", "ses_", "session."},
	KindAPIKey:  {"api_key", "key_", "api_key."},
	KindRefresh: {"refresh_token", "grant_", "grant."},
	KindAccess:  {"access_token", "tok_", "access_token."},
	KindCode:    {"authorization_code", "code_", "authorization_code."},
	KindTicket:  {"ticket", "ticket_", "ticket."},
	KindJWT:     {"jwt", "jwt_", "jwt."},
	KindClient:  {"client", "client_", "client."},
	KindEntry:   {"entry", "entry_", "entry."},
}

// String returns the kind's name: "session", "api_key", "refresh_token", "access_token", "authorization_code",
// "ticket", "jwt", "client", "entry", or "unknown".
func (k Kind) String() string {
	if w, ok := kinds[k]; ok {
		return w.name
	}
	return "unknown"
}

// A SessionID is the public handle of a session (ses_…), an API key (key_…), an OAuth grant (grant_…), an access token
// (tok_…) or another record. It is no secret: it may stand in logs, lists and URLs, and it opens nothing. It stays the
// same when the token is renewed, and changes at sign-in.
type SessionID string

// ErrBadSessionID is returned for text that is not a session's handle.
var ErrBadSessionID = errors.New("not a session id: want ses_, key_ or another kind's prefix, and 23 or 35 characters")

func newSessionID(k Kind, id store.ID) SessionID {
	prefix := "ses_"
	if k != KindSession { // the ordinary case without a look at the map
		prefix = kinds[k].handle
	}
	var buf [64]byte
	b := append(buf[:0], prefix...)
	return SessionID(base64.RawURLEncoding.AppendEncode(b, id.Append(make([]byte, 0, 26))))
}

// Whole reports whether the text has the form of a whole handle, and not of the beginning of one, or of a token. Whether it
// is one only the authority can tell.
func (id SessionID) Whole() bool {
	prefix, text, ok := strings.Cut(string(id), "_")
	if !ok || len(text) != 23 && len(text) != 35 {
		return false
	}
	for i := range len(text) {
		if c := text[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	for _, w := range kinds {
		if w.handle == prefix+"_" {
			return true
		}
	}
	return false
}

func (id SessionID) parse() (store.ID, error) {
	if !id.Whole() {
		return store.ID{}, ErrBadSessionID
	}
	_, text, _ := strings.Cut(string(id), "_")
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return store.ID{}, ErrBadSessionID
	}
	sid, err := store.ParseID(b)
	if err != nil || sid.IsSubject() {
		return store.ID{}, ErrBadSessionID
	}
	return sid, nil
}

// A Session is what the authority knows about one sign-in of a subject on one device, or about one API key, one OAuth
// grant, or one token below these. It never holds a secret. It is a snapshot, which others are
// given, too: neither it nor its slices may be changed.
type Session struct {
	ID SessionID
	// Root is the session, API key, offline grant or client that this lives under: its end is the end of this. It is ID
	// itself for what stands by itself. It is what JWTs name in sid.
	Root SessionID
	// Grant is the OAuth grant that an access token was made from, if any.
	Grant SessionID
	// Origin is the session that an offline grant or an API key came from, if any. See RevokeFrom.
	Origin  SessionID
	Subject string // the application's name for the person or machine; empty while anonymous
	Client  string // the OAuth client it was made for, if any
	Name    string // what people call it: an API key's label
	Policy  string // the name of the policy it lives by

	// What is small stands together: a hundred thousand of these are kept in memory.
	Kind   Kind
	rootAs Kind // the root's
	// Persistent says that the policy lets the browser keep the cookie after it was closed.
	Persistent bool
	renewal    bool
	lost       bool // the token is out of date by a lost answer
	frozen     bool // on hold: see Freeze
	Tenant     uint32
	Generation uint32 // how often the token has been renewed, and one

	Created  time.Time
	LastSeen time.Time // when it was last used, to within a minute
	// Absolute is when it ends whatever happens. Zero for an API key without an end.
	Absolute time.Time
	// Idle is when it ends if it is not used. Zero for an API key, which has no idle limit.
	Idle time.Time

	Auth     Authentication
	Scopes   []string
	Audience []string // the services that the token is for (RFC 8707); none: any
	JWTID    string   // jti, of a JWT
	Limits   *Limits  // of an API key, and of what lives under it; nil: none
	Device   Client   // where it was made
	Renewed  time.Time

	// Ended is set on sessions from a list that are over: when, and why. Validate never returns one. When the time is
	// not known exactly, it is the time of the look. Of one that is on hold (Frozen), Why is the reason, and Ended zero.
	Ended time.Time
	Why   Reason

	actors string // one a line
	record store.ID
}

// Limits say how an API key may be used.
type Limits struct {
	Networks []netip.Prefix // where from; none: anywhere
	Rate     int            // how many requests a minute on one node; 0: any number
}

// Anonymous reports whether nobody has signed in: the session only keeps data.
func (s *Session) Anonymous() bool { return s.Subject == "" }

// Actor returns who acts for the subject, after a token exchange (RFC 8693), or "" if it is the subject itself.
func (s *Session) Actor() string {
	who, _, _ := strings.Cut(s.actors, "\n")
	return who
}

// Actors returns who acts for the subject, and who acted before, the last one first: the nested act of RFC 8693.
func (s *Session) Actors() []string {
	if s.actors == "" {
		return nil
	}
	return strings.Split(s.actors, "\n")
}

// RenewalDue reports whether the answer to this request should carry a renewed token, if it can: call Authority.Renew
// when the response headers are written. It says nothing to be told to the client.
func (s *Session) RenewalDue() bool { return s.renewal }

// Authentication says how and when the person proved who they are. The application vouches for it.
type Authentication struct {
	// Methods are RFC 8176 names: pwd, otp, hwk, … Beside them the class of the authentication (acr, OpenID Connect Core,
	// section 2) may stand, as ACRMethod has it; see ACR.
	Methods []string
	At      time.Time // when; the time of Issue if zero
}

// acrPrefix begins what stands among the methods and is none: the class.
const acrPrefix = "acr:"

// ACRMethod returns what stands among Authentication.Methods for a class of authentication, such as urn:example:gold.
func ACRMethod(class string) string { return acrPrefix + class }

// ACR returns the class of the authentication (acr), "" if none was named.
func (a Authentication) ACR() string {
	for _, m := range a.Methods {
		if class, ok := strings.CutPrefix(m, acrPrefix); ok {
			return class
		}
	}
	return ""
}

// AMR returns the methods alone, without the class: the amr of RFC 8176. It allocates nothing where there is no class.
func (a Authentication) AMR() []string {
	isClass := func(m string) bool { return strings.HasPrefix(m, acrPrefix) }
	if !slices.ContainsFunc(a.Methods, isClass) {
		return a.Methods
	}
	return slices.DeleteFunc(slices.Clone(a.Methods), isClass)
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
