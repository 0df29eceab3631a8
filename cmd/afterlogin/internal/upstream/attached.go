package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin"
)

// The realms of the authority's entries.
const (
	realmSession = "oidc-session" // by sid: which sessions came from an upstream session, and when it ended
	realmSubject = "oidc-subject" // by sub: when all of a subject's upstream sessions ended
	realmLogout  = "oidc-logout"  // by jti: the logout tokens that were heeded
)

// Bounds of a record.
const (
	maxSessions = 40 // listed one by one; the subject of any more is kept as pending
	maxPending  = 4  // subjects
	attempts    = 64 // conflicts in a row, each of which somebody else got on by
)

const (
	day = 24 * time.Hour
	// apart is more than the clocks of two servers differ by, and more than a sign-in takes.
	apart = time.Hour
)

// errSignedOut means that the provider has ended the upstream session, or all of the subject's, after it made the ID token.
var errSignedOut = errors.New("the provider has signed the person out meanwhile")

// record is what an entry says.
type record struct {
	// Ended is the iat of the last logout token, in seconds: what the provider said until then counts no more.
	Ended int64 `json:"ended,omitempty"`
	// Sessions are those that came from the upstream session.
	Sessions []afterlogin.SessionID `json:"sessions,omitempty"`
	// Pending are the subjects of sessions that may exist and are not listed, and how many sign-ins left them there.
	Pending map[string]int `json:"pending,omitempty"`
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

// ended reports whether the provider has taken back what it said at the time.
func (r *record) ended(said time.Time) bool { return r.Ended != 0 && r.Ended >= said.Unix() }

// take removes one pending sign-in of the subject.
func (r *record) take(subject string) {
	if r.Pending == nil {
		return
	}
	if r.Pending[subject]--; r.Pending[subject] <= 0 {
		delete(r.Pending, subject)
	}
}

// attached remembers which of our sessions came from which upstream session. See the package's documentation for the
// order of the steps.
type attached struct {
	authority *afterlogin.Authority
	tenant    uint32
	longest   time.Duration
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
		if !f(&found.record) {
			return found, nil
		}
		e, err := t.authority.ChangeEntry(ctx, found.Entry, found.record.encode())
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			continue
		}
		return &entry{e, found.record}, err
	}
	return nil, fmt.Errorf("%w: %d conflicts in a row", afterlogin.ErrUnavailable, attempts)
}

// hold is the place of a sign-in in its upstream session's entry, from before the session is made. The zero hold is that
// of a provider that does not tell its sessions apart.
type hold struct {
	t       *attached
	name    string
	end     time.Time
	subject string
	issued  time.Time
}

// begin notes that a session of the subject is about to be made because of what the provider said at the time. The
// authority's mark of the sign-in must have been taken before. Errors: errSignedOut, ErrUnavailable.
func (t *attached) begin(ctx context.Context, p *provider, sid, subject, sub string, issued time.Time) (hold, error) {
	es, err := t.look(ctx, realmSubject, nameOf(p, sub), 2*apart)
	if err != nil {
		return hold{}, err
	}
	for _, e := range es {
		if e.record.ended(issued) {
			return hold{}, errSignedOut
		}
	}
	if sid == "" {
		return hold{}, nil
	}
	h := hold{t: t, name: nameOf(p, sid), end: endOfDay(t.now().Add(t.longest)), subject: subject, issued: issued}
	over, crowd := false, false
	_, err = t.change(ctx, realmSession, h.name, h.end, func(r *record) bool {
		over = r.ended(issued)
		crowd = r.Pending[subject] == 0 && len(r.Pending) >= maxPending
		if over || crowd {
			return false
		}
		if r.Pending == nil {
			r.Pending = make(map[string]int)
		}
		r.Seen = true
		r.Pending[subject]++
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
	return h, nil
}

// settle lists the session. If the upstream session has ended meanwhile it ends ours, durably, and returns errSignedOut.
// If the store does not answer, the sign-in stays pending, and a logout ends all of the subject's sessions: nothing is
// lost by that.
func (h hold) settle(ctx context.Context, id afterlogin.SessionID) error {
	if h.t == nil {
		return nil
	}
	over := false
	_, err := h.t.change(ctx, realmSession, h.name, h.end, func(r *record) bool {
		if over = r.ended(h.issued); over {
			return false
		}
		for _, s := range r.Sessions {
			if s == id { // stepped up: it has been here before
				r.take(h.subject)
				return true
			}
		}
		if len(r.Sessions) >= maxSessions {
			return false
		}
		r.take(h.subject)
		r.Sessions = append(r.Sessions, id)
		return true
	})
	if err == nil && over {
		if err = h.t.authority.Revoke(ctx, id, afterlogin.ReasonSignedOut); err == nil || errors.Is(err, afterlogin.ErrNoSession) {
			return errSignedOut
		}
		return err
	}
	return nil
}

// drop notes that no session was made after all. If that fails the sign-in stays pending.
func (h hold) drop(ctx context.Context) {
	if h.t == nil {
		return
	}
	h.t.change(ctx, realmSession, h.name, h.end, func(r *record) bool {
		if r.Pending[h.subject] == 0 {
			return false
		}
		r.take(h.subject)
		return true
	})
}

// endSession ends what came from the upstream session, and what is about to. It reports whether a sign-in ever named it.
// All of it is durable when the error is nil.
func (t *attached) endSession(ctx context.Context, p *provider, sid string, at time.Time) (known bool, err error) {
	name := nameOf(p, sid)
	es, err := t.look(ctx, realmSession, name, t.longest+2*apart)
	if err != nil {
		return false, err
	}
	// Where a sign-in would put its entry that is under way now: it must find the end there.
	ends := map[time.Time]bool{endOfDay(t.now().Add(t.longest - apart)): true, endOfDay(t.now().Add(t.longest + apart)): true}
	for _, e := range es {
		ends[e.Until.UTC()] = true
	}
	for end := range ends {
		e, err := t.change(ctx, realmSession, name, end, func(r *record) bool {
			r.Ended = max(r.Ended, at.Unix())
			return true
		})
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
			if err := t.authority.RevokeSubject(ctx, t.tenant, subject, afterlogin.Sessions); err != nil {
				return known, err
			}
		}
		if len(e.record.Sessions)+len(e.record.Pending) > 0 {
			// They are over. If this is not written, or somebody was faster, they are ended once more some day.
			t.authority.ChangeEntry(ctx, e.Entry, (&record{Ended: e.record.Ended, Seen: e.record.Seen}).encode())
		}
	}
	return known, nil
}

// endSubject ends all sessions of the subject, and those that are about to be made because of what the provider said
// until then.
func (t *attached) endSubject(ctx context.Context, p *provider, sub string, at time.Time) error {
	_, err := t.change(ctx, realmSubject, nameOf(p, sub), endOfDay(t.now().Add(apart)), func(r *record) bool {
		r.Ended = max(r.Ended, at.Unix())
		return true
	})
	if err != nil {
		return err
	}
	return t.authority.RevokeSubject(ctx, t.tenant, p.ID+":"+sub, afterlogin.Sessions)
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
