// Package entrance says who may enter the console: it makes links that are good once, and remembers which sessions were
// made with them, for whom and in which role.
//
// A session of the console is a session of a tenant of its own, [Tenant]: what the JSON API, OAuth, the gateway and the
// sign-in pages make is of another, so that none of them can make one, whatever an API key may do; and none of them accepts
// one. Besides, the console lets a session in only if it is written here that it was made by a link; the role is read from
// there, and from nowhere else.
//
// Start with [New].
package entrance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Tenant is whose the console's sessions are. No other part of the server makes or accepts sessions of this tenant.
const Tenant = 1<<32 - 1

// SubjectPrefix begins the subjects of the console's sessions.
const SubjectPrefix = "afterlogin/console/"

// The realms of the entries.
const (
	linksRealm  = "console-links"
	peopleRealm = "console-people"
)

// Times of links.
const (
	DefaultLifetime = 30 * time.Minute
	MaxLifetime     = 24 * time.Hour
)

// A Role is what somebody may do in the console.
type Role string

// The roles.
const (
	Admin  Role = "admin"  // everything
	Viewer Role = "viewer" // look at everything but secrets, change nothing
)

// Errors of this package.
var (
	// ErrNoLink is for a link that is none, is over, was used or cancelled before, or whose maker was thrown out.
	ErrNoLink = errors.New("this link is not good: it was used or cancelled before, or it is too old")
	// ErrTooManyLinks is for a link too many.
	ErrTooManyLinks = fmt.Errorf("%d links are open, and that is the most: cancel some that nobody needs", MaxOpen)
	// ErrNobody is for a session that was not made by a link.
	ErrNobody = errors.New("this session was not made for the console")
)

// A FieldError is what is wrong with a LinkRequest.
type FieldError struct{ Field, Message string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// Options configure New. Authority is required.
type Options struct {
	Authority *afterlogin.Authority
	// URL is where people find the console: https://auth.example/console. Without it a Link's URL is a path.
	URL string
	Now func() time.Time // the authority's clock; nil means time.Now
}

// An Entrance makes links and knows who has come in. It is safe for concurrent use by any number of servers on one store,
// and has no goroutines.
type Entrance struct {
	authority *afterlogin.Authority
	url       string
	now       func() time.Time
}

// New returns the entrance of the authority's console.
func New(o Options) (*Entrance, error) {
	if o.Authority == nil {
		return nil, errors.New("entrance: Authority is needed")
	}
	e := &Entrance{authority: o.Authority, url: strings.TrimSuffix(o.URL, "/"), now: o.Now}
	if e.url == "" {
		e.url = "/console"
	}
	if e.now == nil {
		e.now = time.Now
	}
	return e, nil
}

// A LinkRequest says what link to make.
type LinkRequest struct {
	Role     Role          // required
	Name     string        // who it is for: 1 to 64 of a to z, 0 to 9 and . _ @ -; empty: the role
	Lifetime time.Duration // 1 s to MaxLifetime; zero: DefaultLifetime
	By       string        // who made it, for people to read
	// Maker is the API key, or the console's session, that it is made with. Once that was taken from whoever had it, the
	// link is not good any more. Empty: the server itself.
	Maker afterlogin.SessionID
}

// A Link lets one person into the console, once.
type Link struct {
	ID      string // names it, and opens nothing: link_…
	Role    Role
	Name    string
	By      string
	Created time.Time
	Until   time.Time
	// URL is the address with its secret; empty on a link that was only looked up.
	URL string

	entry  *afterlogin.Entry
	detail linkDetail
}

// linkDetail is what the entry of a link says.
type linkDetail struct {
	Role  Role   `json:"role"`
	Name  string `json:"name"`
	Until int64  `json:"until"` // Unix milliseconds
	By    string `json:"by,omitempty"`
	Used  int64  `json:"used,omitempty"` // Unix milliseconds; or cancelled

	Maker afterlogin.SessionID `json:"maker,omitempty"`
}

// Param is the name of the parameter that carries a link's secret.
const Param = "link"

// MakeLink makes a link. Its secret is 256 random bits, of which the store gets a hash. It is durable when it returns nil.
// Errors: *FieldError, ErrTooManyLinks, afterlogin.ErrUnavailable.
func (e *Entrance) MakeLink(ctx context.Context, r LinkRequest) (*Link, error) {
	if r.Role != Admin && r.Role != Viewer {
		return nil, &FieldError{"role", "want admin or viewer"}
	}
	if r.Name == "" {
		r.Name = string(r.Role)
	}
	if !validName(r.Name) {
		return nil, &FieldError{"name", "want 1 to 64 of a to z, 0 to 9 and . _ @ -, in lower case"}
	}
	if r.Lifetime == 0 {
		r.Lifetime = DefaultLifetime
	}
	if r.Lifetime < time.Second || r.Lifetime > MaxLifetime {
		return nil, &FieldError{"lifetime", fmt.Sprintf("want 1s to %dh", MaxLifetime/time.Hour)}
	}
	var b [32]byte
	rand.Read(b[:])
	secret := secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	until, id := e.now().Add(r.Lifetime), linkName(secret)
	d := linkDetail{Role: r.Role, Name: r.Name, Until: until.UnixMilli(), By: r.By, Maker: r.Maker}
	detail, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if err := e.note(ctx, id, until); err != nil { // first: no link is good that is not in the list
		return nil, err
	}
	entry, err := e.authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: linksRealm, Name: id, Detail: detail, Until: until})
	if err != nil {
		return nil, err
	}
	if err := e.noted(ctx, id, until); err != nil {
		return nil, err // nobody has its secret
	}
	l := newLink(entry, d)
	l.URL = e.url + "/enter?" + url.Values{Param: {secret}}.Encode()
	return l, nil
}

func newLink(entry *afterlogin.Entry, d linkDetail) *Link {
	return &Link{
		ID: entry.Name, Role: d.Role, Name: d.Name, By: d.By, Created: entry.Created, Until: time.UnixMilli(d.Until),
		entry: entry, detail: d,
	}
}

// secretPrefix makes a link's secret look like a token, so that whatever keeps tokens out of logs keeps it out, too.
const secretPrefix = "all_"

// idPrefix begins the ids of links.
const idPrefix = "link_"

// linkName is what a link's entry is called, which is its id: a hash, from which nobody gets at the secret.
func linkName(secret string) string {
	sum := sha256.Sum256([]byte("afterlogin/console-link/1\x00" + secret))
	return idPrefix + base64.RawURLEncoding.EncodeToString(sum[:16])
}

// IsSecret reports whether the text has the form of a link's secret.
func IsSecret(s string) bool {
	text, ok := strings.CutPrefix(s, secretPrefix)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return ok && err == nil && len(b) == 32 && len(text) == 43
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("._@-", c) >= 0) {
			return false
		}
	}
	return true
}

// Look returns the link of the secret, which stays good. Errors: ErrNoLink, afterlogin.ErrUnavailable.
func (e *Entrance) Look(ctx context.Context, secret string) (*Link, error) {
	if !IsSecret(secret) {
		return nil, ErrNoLink
	}
	return e.open(ctx, linkName(secret))
}

// Use uses the link of the secret up, and returns it. However many try at once, one succeeds. Errors: ErrNoLink,
// afterlogin.ErrUnavailable, after which the link may be used up.
func (e *Entrance) Use(ctx context.Context, secret string) (*Link, error) {
	l, err := e.Look(ctx, secret)
	if err != nil {
		return nil, err
	}
	if err := e.close(ctx, l); err != nil {
		return nil, err
	}
	return l, nil
}
