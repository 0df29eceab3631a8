package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// The realms of the authority's entries.
const (
	realmSession = "oidc-session" // by sid: which sessions came from an upstream session, and when it ended
	realmEnded   = "oidc-ended"   // by sid: when an upstream session ended, for sign-ins that are under way
	realmSubject = "oidc-subject" // by sub: when all of a subject's upstream sessions ended
	realmLogout  = "oidc-logout"  // by jti: the logout tokens that were heeded
)

// Bounds of a record.
const (
	maxSessions = 40 // listed one by one; the subject of any more is kept as pending
	maxPending  = 4  // subjects
	maxHolds    = 16 // sign-ins that are pending, of one subject; any more, and it stays pending until a logout
	attempts    = 64 // conflicts in a row, each of which somebody else got on by
)

const (
	day = 24 * time.Hour
	// apart is more than the clocks of two servers differ by, and more than a sign-in takes.
	apart = time.Hour
	// farthest is how far ahead an entry of sessions may end: whatever the policies were when it was made, and on
	// whichever server.
	farthest = MaxLongest + 2*apart
	// tolerance is what the clocks of a provider's own machines may differ by, in seconds.
	tolerance = 2
	// settleTime is how long the last step of a sign-in may take, which the browser cannot cut short.
	settleTime = 5 * time.Second
)

// errSignedOut means that the provider has ended the upstream session, or all of the subject's, after it made the ID token.
var errSignedOut = errors.New("the provider has signed the person out meanwhile")

// record is what an entry says.
type record struct {
	// Ended is the iat of the last logout token, in seconds: what the provider said until then counts no more.
	Ended int64 `json:"ended,omitempty"`
	// Sessions are those that came from the upstream session.
	Sessions []afterlogin.SessionID `json:"sessions,omitempty"`
	// Pending are the subjects of sessions that may exist and are not listed, and the holds that keep them there: each
	// goes with its own sign-in, and with no other. One that is pending for everybody stays until a logout.
	Pending map[string][]string `json:"pending,omitempty"`
	// Seen says that a sign-in ever named the upstream session.
	Seen bool `json:"seen,omitempty"`
	// Done says of a logout token that all that it asks for has been done.
	Done bool `json:"done,omitempty"`
}

func (r *record) encode() json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		panic("upstream: " + err.Error()) // numbers, strings and booleans
	}
	return bytes.TrimSpace(b.Bytes())
}

// ended reports whether the provider has taken back what it said at the time, or may have: another machine of its own,
// whose clock is another, too, may have said it.
func (r *record) ended(said time.Time) bool { return r.Ended != 0 && r.Ended+tolerance >= said.Unix() }

// everybody is the hold of a subject that is pending until a logout.
const everybody = "*"

// put makes the hold's subject pending.
func (r *record) put(h hold) {
	if r.Pending == nil {
		r.Pending = make(map[string][]string)
	}
	had := r.Pending[h.subject]
	switch {
	case slices.Contains(had, everybody):
	case len(had) >= maxHolds:
		r.Pending[h.subject] = []string{everybody}
	default:
		r.Pending[h.subject] = append(had, h.id)
	}
}

// take removes the hold, if it is there.
func (r *record) take(h hold) (was bool) {
	i := slices.Index(r.Pending[h.subject], h.id)
	if i < 0 {
		return false
	}
	left := slices.Delete(r.Pending[h.subject], i, i+1)
	if r.Pending[h.subject] = left; len(left) == 0 {
		delete(r.Pending, h.subject)
	}
	return true
}

// attached remembers which of our sessions came from which upstream session. See the package's documentation for the
// order of the steps.
type attached struct {
	authority *afterlogin.Authority
	tenant    uint32
	longest   time.Duration // of sessions that are made now
	log       *slog.Logger
	now       func() time.Time
}

// nameOf is the name of an entry: a hash, since names of entries can be read by whoever reads the store.
func nameOf(p *provider, value string) string {
	h := sha256.New()
	h.Write([]byte("afterlogin/oidc-name/1\x00"))
	for _, s := range []string{p.ID, p.Issuer, value} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s))))
		h.Write([]byte(s))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// endOfDay is when a temporary entry ends that is to live until t.
func endOfDay(t time.Time) time.Time { return t.UTC().Truncate(day).Add(day) }

// entry is an entry as it was read.
type entry struct {
	*afterlogin.Entry
	record record
}

// look returns the entries of the name which end within the time.
func (t *attached) look(ctx context.Context, realm, name string, within time.Duration) ([]entry, error) {
	es, err := t.authority.TemporaryEntries(ctx, t.tenant, realm, name, within)
	if err != nil {
		return nil, err
	}
	out := make([]entry, len(es))
	for i, e := range es {
		out[i].Entry = e
		if err := json.Unmarshal(e.Detail, &out[i].record); err != nil {
			return nil, fmt.Errorf("%w: an entry in %s does not read", afterlogin.ErrUnavailable, realm)
		}
	}
	return out, nil
}

// change has f change the record of the name that ends on the day, which is made if there is none, until nobody else was
// faster. f returns false to leave it as it is. The entry is returned as it then is, nil if there is none.
func (t *attached) change(ctx context.Context, realm, name string, end time.Time, f func(*record) bool) (*entry, error) {
	for range attempts {
		es, err := t.look(ctx, realm, name, end.Sub(t.now())+apart)
		if err != nil {
			return nil, err
		}
		var found *entry
		for i := range es {
			if es[i].Until.Equal(end) {
				found = &es[i]
			}
		}
		if found == nil {
			var r record
			if !f(&r) {
				return nil, nil
			}
			e, err := t.authority.AddEntry(ctx, afterlogin.EntryRequest{
				Tenant: t.tenant, Realm: realm, Name: name, Detail: r.encode(), Until: end.Add(-time.Millisecond),
			})
			if errors.Is(err, afterlogin.ErrEntryExists) {
				continue
			}
			return &entry{e, r}, err
		}
		if e, err := t.amend(ctx, found, f); !errors.Is(err, afterlogin.ErrEntryChanged) {
			return e, err
		}
	}
	return nil, fmt.Errorf("%w: %d conflicts in a row", afterlogin.ErrUnavailable, attempts)
}

// amend has f change an entry that was just read. Errors: ErrEntryChanged, ErrUnavailable.
func (t *attached) amend(ctx context.Context, found *entry, f func(*record) bool) (*entry, error) {
	if !f(&found.record) {
		return found, nil
	}
	e, err := t.authority.ChangeEntry(ctx, found.Entry, found.record.encode())
	return &entry{e, found.record}, err
}

// heard returns errSignedOut if an entry of the name says that the provider has taken back what it said at the time. It
// looks only as far ahead as note writes, however long sessions live.
func (t *attached) heard(ctx context.Context, realm, name string, said time.Time) error {
	es, err := t.look(ctx, realm, name, 2*apart)
	if err != nil {
		return err
	}
	for _, e := range es {
		if e.record.ended(said) {
			return errSignedOut
		}
	}
	return nil
}

// note writes down, for sign-ins that are under way, that the provider has taken back what it said until then. That is for
// no longer than they take.
func (t *attached) note(ctx context.Context, realm, name string, at time.Time) error {
	_, err := t.change(ctx, realm, name, endOfDay(t.now().Add(apart)), func(r *record) bool {
		r.Ended = max(r.Ended, at.Unix())
		return true
	})
	return err
}

// hold is the place of a sign-in in its upstream session's entry, from before the session is made. The zero hold is that
// of a provider that does not tell its sessions apart.
type hold struct {
	t       *attached
	id      string
	name    string
	end     time.Time
	subject string
	issued  time.Time
}

// begin notes that a session of the subject is about to be made because of what the provider said at the time. The
// authority's mark of the sign-in must have been taken before. Errors: errSignedOut, ErrUnavailable.
func (t *attached) begin(ctx context.Context, p *provider, sid, subject, sub string, issued time.Time) (hold, error) {
	if err := t.heard(ctx, realmSubject, nameOf(p, sub), issued); err != nil {
		return hold{}, err
	}
	if sid == "" {
		return hold{}, nil
	}
	h := hold{
		t: t, id: holdID(), name: nameOf(p, sid), end: endOfDay(t.now().Add(t.longest + apart)), subject: subject, issued: issued,
	}
	over, crowd := false, false
	_, err := t.change(ctx, realmSession, h.name, h.end, func(r *record) bool {
		over = r.ended(issued)
		crowd = len(r.Pending[subject]) == 0 && len(r.Pending) >= maxPending
		if over || crowd {
			return false
		}
		r.Seen = true
		r.put(h)
		return true
	})
	switch {
	case err != nil:
		return hold{}, err
	case over:
		return hold{}, errSignedOut
	case crowd:
		return hold{}, errors.New("ID token: sid: the provider uses one for several people")
	}
	// A logout that has looked before this entry was there has written this before it looked.
	if err := t.heard(ctx, realmEnded, h.name, issued); err != nil {
		h.drop(ctx)
		return hold{}, err
	}
	return h, nil
}

// holdID returns text that is unique among the holds of an entry.
func holdID() string {
	var b [8]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// settle lists the session. If the upstream session has ended meanwhile it ends ours, durably, and returns errSignedOut.
// If the store does not answer when the session is to be listed, the sign-in stays pending, and a logout ends all of the
// subject's sessions: nothing is lost by that, and it is no error. It is one that ours could not be ended.
func (h hold) settle(ctx context.Context, id afterlogin.SessionID) error {
	if h.t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	over := false
	_, err := h.t.change(ctx, realmSession, h.name, h.end, func(r *record) bool {
		if over = r.ended(h.issued); over {
			return false
		}
		if !slices.Contains(r.Sessions, id) { // else it is stepped up
			if len(r.Sessions) >= maxSessions {
				if r.Pending == nil {
					r.Pending = make(map[string][]string)
				}
				r.Pending[h.subject] = []string{everybody}
				return true
			}
			r.Sessions = append(r.Sessions, id)
		}
		r.take(h)
		return true
	})
	if err != nil {
		h.t.log.Warn("a session is not listed with its upstream session: a logout of that will end all of the subject's", "session", id, "err", err)
		return nil
	}
	if !over {
		return nil
	}
	if err := h.t.authority.Revoke(ctx, id, afterlogin.ReasonSignedOut); err != nil && !errors.Is(err, afterlogin.ErrNoSession) {
		return err
	}
	return errSignedOut
}

// drop notes that no session was made after all. If that fails the sign-in stays pending.
func (h hold) drop(ctx context.Context) {
	if h.t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	_, err := h.t.change(ctx, realmSession, h.name, h.end, func(r *record) bool { return r.take(h) })
	if err != nil {
		h.t.log.Warn("a sign-in that was not finished stays noted: a logout of its upstream session will end all of the subject's", "err", err)
	}
}

// endSession ends what came from the upstream session, and what is about to. It reports whether a sign-in ever named it.
// All of it is durable when the error is nil.
func (t *attached) endSession(ctx context.Context, p *provider, sid string, at time.Time) (known bool, err error) {
	name := nameOf(p, sid)
	if err := t.note(ctx, realmEnded, name, at); err != nil {
		return false, err
	}
	// Policies may have been others, and may be others on other servers: so it looks everywhere, which is a read for each 64
	// days.
	es, err := t.look(ctx, realmSession, name, farthest)
	if err != nil {
		return false, err
	}
	end := func(r *record) bool {
		r.Ended = max(r.Ended, at.Unix())
		return true
	}
	for i := range es {
		e, err := t.amend(ctx, &es[i], end)
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			e, err = t.change(ctx, realmSession, name, es[i].Until.UTC(), end)
		}
		if err != nil {
			return known, err
		}
		known = known || e.record.Seen
		for _, id := range e.record.Sessions {
			if err := t.authority.Revoke(ctx, id, afterlogin.ReasonSignedOut); err != nil && !errors.Is(err, afterlogin.ErrNoSession) {
				return known, err
			}
		}
		for subject := range e.record.Pending {
			if err := t.authority.RevokeSubject(ctx, t.tenant, subject, afterlogin.Sessions, afterlogin.ReasonSignedOutAll); err != nil {
				return known, err
			}
		}
		if len(e.record.Sessions)+len(e.record.Pending) > 0 {
			// They are over. If this is not written, or somebody was faster, they are ended once more some day.
			if _, err := t.authority.ChangeEntry(ctx, e.Entry, (&record{Ended: e.record.Ended, Seen: e.record.Seen}).encode()); err != nil {
				t.log.Debug("sessions that were ended stay listed", "err", err)
			}
		}
	}
	return known, nil
}

// endSubject ends all sessions of the subject, and those that are about to be made because of what the provider said
// until then.
func (t *attached) endSubject(ctx context.Context, p *provider, sub string, at time.Time) error {
	if err := t.note(ctx, realmSubject, nameOf(p, sub), at); err != nil {
		return err
	}
	return t.authority.RevokeSubject(ctx, t.tenant, p.ID+":"+sub, afterlogin.Sessions, afterlogin.ReasonSignedOutAll)
}

// heed has do do what a logout token asks for, once: again if it failed, and not again if it did not. It reports whether
// the token was heeded before.
func (t *attached) heed(ctx context.Context, p *provider, jti string, issued time.Time, do func() error) (replayed bool, err error) {
	name, end := nameOf(p, jti), endOfDay(issued.Add(apart))
	_, err = t.change(ctx, realmLogout, name, end, func(r *record) bool {
		replayed = r.Done
		return !replayed
	})
	if err != nil || replayed {
		return replayed, err
	}
	if err := do(); err != nil {
		return false, err
	}
	_, err = t.change(ctx, realmLogout, name, end, func(r *record) bool {
		had := r.Done
		r.Done = true
		return !had
	})
	return false, err
}
