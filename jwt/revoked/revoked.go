// Package revoked keeps in memory what was ended lately, for services that verify JWTs by themselves: a signed token says
// when it is over by time, and not that its session was signed out a minute ago. Feed a [List] with the events of the
// issuer, from Authority.Watch or from GET /v1/events, and ask [List.Check] about the claims that jwt.Verifier returned.
//
// It owns what the events mean for tokens, and how long that must be remembered. It does not fetch events, and does not
// verify tokens.
package revoked

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// An Event is what the issuer says has happened. It is what GET /v1/events answers as data, and the fields of
// afterlogin.Event under the same names. Other fields than these make no difference here.
type Event struct {
	Type       string    `json:"type"`
	At         time.Time `json:"at"`
	Session    string    `json:"session"` // what it is about: ses_…, grant_…, key_…; empty if that is a subject
	Root       string    `json:"root"`    // what Session lives under, or Session itself
	Tenant     uint32    `json:"tenant"`
	Subject    string    `json:"subject"`
	Except     string    `json:"except"`     // of subject.signed_out: the session that was spared
	Everything bool      `json:"everything"` // of subject.signed_out: API keys, too
}

// Defaults.
const (
	DefaultKeep   = time.Hour
	DefaultLeeway = 30 * time.Second
	DefaultMax    = 1_000_000
)

// maxSpared is how many sessions of one subject, made right after a sign-out everywhere, are told from those before it;
// and as many API keys.
const maxSpared = 64

// Options configure New. The zero value works.
type Options struct {
	// Keep is the longest lifetime of a token of the issuer. Zero is an hour, which is the longest that there is.
	Keep time.Duration
	// Leeway is by how much clocks may differ. Zero is 30 s; negative is none.
	Leeway time.Duration
	// Silence is how long the list may hear nothing of the issuer before it says that it does not know. Call Heard at
	// every sign of life, such as the heartbeat of GET /v1/events every 15 s. Zero is for ever: for an issuer in the same
	// process.
	Silence time.Duration
	// Max is how many endings are remembered at most, at about 150 bytes each. Zero is a million. If there are more, the
	// list says that it does not know about tokens from before.
	Max int
	// Now tells the time. Nil is time.Now.
	Now func() time.Time
}

// Why a token is refused, or not.
const ReasonRevoked jwt.Reason = "revoked"

var (
	// ErrRevoked is a refusal: what the token was made from has been ended. It is jwt.ErrInvalid.
	ErrRevoked error = &jwt.Refusal{Reason: ReasonRevoked, Detail: "its session was ended"}
	// ErrUnknown is neither a yes nor a no: the token is from before the list began to follow the events, or events were
	// missed, or nothing was heard for too long. Ask the issuer (introspection), or refuse.
	ErrUnknown = errors.New("it is not known whether the token was revoked")
)

// A List is what was ended lately. It is safe for concurrent use. Make it with New.
type List struct {
	keep, leeway, silence time.Duration
	max                   int
	now                   func() time.Time

	// mu guards the rest.
	mu sync.RWMutex
	// since is when the list began to know everything: of tokens from before, it knows some endings only.
	since, heard time.Time
	// Endings are kept in two generations; the older one goes when the younger is as old as a token can get.
	young, old generation
}

type generation struct {
	begun, last time.Time
	ids         map[string]struct{} // without the prefix: store.rolled_back does not tell what kind it is about
	subjects    map[subject]signOut
}

func (g *generation) size() int { return len(g.ids) + len(g.subjects) }

type subject struct {
	tenant uint32
	name   string
}

// signOut is what ended with a subject: two endings, since API keys outlive the one of sessions.
type signOut struct {
	sessions, everything ending
	except               string // the root that the ending of sessions spared
}

// ending is the end of all roots that were there at one moment.
type ending struct {
	at    time.Time
	since []string // roots that were made right after it
}

// New returns a list that begins now: it knows nothing of what was ended before. Open the stream of events first, and
// make the list then.
func New(o Options) *List {
	l := &List{keep: o.Keep, leeway: o.Leeway, silence: o.Silence, max: o.Max, now: o.Now}
	if l.keep <= 0 {
		l.keep = DefaultKeep
	}
	if l.leeway == 0 {
		l.leeway = DefaultLeeway
	}
	l.leeway = max(l.leeway, 0)
	if l.max <= 0 {
		l.max = DefaultMax
	}
	if l.now == nil {
		l.now = time.Now
	}
	l.since = l.now()
	l.heard = l.since
	l.young = newGeneration(l.since)
	return l
}

func newGeneration(now time.Time) generation {
	return generation{begun: now, last: now, ids: make(map[string]struct{}), subjects: make(map[subject]signOut)}
}

// Gap says that events were missed (ErrGap of Authority.Watch, the event gap of GET /v1/events). From then on Check does
// not know about tokens from before, other than those that it knows to be ended.
func (l *List) Gap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = l.now()
	l.heard = l.since
}

// Heard says that the stream of events is alive, and that there are none at the moment.
func (l *List) Heard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = l.now()
}

// Add takes the next event of the stream, of whatever type. Events come in the order of the stream.
func (l *List) Add(e Event) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = now
	switch e.Type {
	case "subject.signed_out":
		l.makeRoom(now)
		l.signedOut(e)
	case "session.created", "api_key.created", "grant.created":
		if bare(e.Session) == bare(e.Root) {
			l.spare(e)
		}
	case "store.rolled_back": // nothing under the root is believed any more
		l.end(e.Root, now)
	case "authorization_code.replayed": // it is about what was made from the code
		l.end(e.Session, now)
	default:
		_, what, _ := strings.Cut(e.Type, ".")
		switch what {
		case "revoked", "reuse_detected", "superseded", "frozen":
			l.end(e.Session, now)
		case "thawed": // nothing that has ended otherwise is ever thawed
			delete(l.young.ids, bare(e.Session))
			delete(l.old.ids, bare(e.Session))
		}
	}
}

// end remembers what the id names as ended.
func (l *List) end(id string, now time.Time) {
	if id == "" {
		return
	}
	l.makeRoom(now)
	l.young.ids[bare(id)] = struct{}{}
	l.young.last = now
}

// makeRoom begins another generation if the young one is old enough, or large.
func (l *List) makeRoom(now time.Time) {
	full := l.young.size() >= max(l.max/2, 1)
	if now.Sub(l.young.begun) < l.keep+2*l.leeway && !full {
		return
	}
	if l.old.size() > 0 && now.Sub(l.old.last) < l.keep+2*l.leeway {
		l.since = now // what is forgotten here could still have been asked for
	}
	l.old, l.young = l.young, newGeneration(now)
}

func (l *List) signedOut(e Event) {
	k := subject{e.Tenant, e.Subject}
	s, ok := l.young.subjects[k]
	if !ok { // of two generations one at most has it
		s = l.old.subjects[k]
	}
	if !e.At.Before(s.sessions.at) {
		s.sessions, s.except = ending{at: e.At}, bare(e.Except)
	}
	if e.Everything && !e.At.Before(s.everything.at) {
		s.everything = ending{at: e.At}
	}
	l.young.subjects[k] = s
	l.young.last = l.heard
	delete(l.old.subjects, k)
}

// spare notes that a root was made after its subject's others were ended. Without this, the first tokens of a person who
// changes the password and goes on would look like the ones that were to end.
func (l *List) spare(e Event) {
	k := subject{e.Tenant, e.Subject}
	for _, g := range []*generation{&l.young, &l.old} {
		s, ok := g.subjects[k]
		if !ok {
			continue
		}
		end := &s.sessions
		if e.Type == "api_key.created" {
			end = &s.everything
		}
		if end.at.IsZero() || e.At.After(end.at.Add(2*l.leeway+time.Second)) {
			continue // its tokens are later than any that are refused
		}
		if len(end.since) >= maxSpared {
			end.since = slices.Delete(end.since, 0, 1)
		}
		end.since = append(slices.Clip(end.since), bare(e.Root))
		g.subjects[k] = s
	}
}

// Check says whether what the token was made from has been ended: nil if not, ErrRevoked, or ErrUnknown. The claims are
// those that a jwt.Verifier returned: Check does not look at issuer, audience and time.
//
// To fail closed, treat every error as a refusal. Where the issuer can be asked, ask it if errors.Is(err, ErrUnknown).
func (l *List) Check(c *jwt.Claims) error {
	if c == nil {
		return ErrUnknown
	}
	now := l.now()
	kind, root, ok := strings.Cut(c.SessionID, "_")
	var under []string // what it was made from, below sid
	if text, has := c.Extra["under"]; has && json.Unmarshal(text, &under) != nil {
		return ErrUnknown
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range []*generation{&l.young, &l.old} {
		if _, ended := g.ids[root]; ended && ok {
			return ErrRevoked
		}
		for _, id := range under {
			if _, ended := g.ids[bare(id)]; ended {
				return ErrRevoked
			}
		}
		if s, has := g.subjects[subject{c.Tenant, c.Subject}]; has && l.signedOutBefore(s, kind, root, c.IssuedAt) {
			return ErrRevoked
		}
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: it names no session", ErrUnknown)
	case c.IssuedAt.Before(l.since.Add(l.leeway)):
		return fmt.Errorf("%w: it is from before %s", ErrUnknown, l.since.UTC().Format(time.RFC3339))
	case l.silence > 0 && now.Sub(l.heard) > l.silence:
		return fmt.Errorf("%w: nothing was heard of the issuer since %s", ErrUnknown, l.heard.UTC().Format(time.RFC3339))
	}
	return nil
}

// signedOutBefore reports whether the token of that root was issued before its subject was signed out. iat is in whole
// seconds.
func (l *List) signedOutBefore(s signOut, kind, root string, issued time.Time) bool {
	end := s.sessions
	switch {
	case kind == "client": // it has no subject but itself
		return false
	case kind == "key":
		end = s.everything
	case s.except != "" && root == s.except:
		return false
	}
	return !end.at.IsZero() && !issued.After(end.at.Add(l.leeway)) && !slices.Contains(end.since, root)
}

// bare is an id without the prefix that says of what kind it is.
func bare(id string) string {
	if _, rest, ok := strings.Cut(id, "_"); ok {
		return rest
	}
	return id
}
