package afterlogin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// IssueRequest says what to issue. Subject or Data is required; everything else has a default.
type IssueRequest struct {
	// Subject is who signed in: the application's own name for them, 1 to 512 bytes of UTF-8. Empty makes an anonymous
	// session, which holds data and nothing else.
	Subject string
	Tenant  uint32
	Kind    Kind   // default KindSession
	Policy  string // default: browser, anonymous without a subject, api-key for keys
	// Mark is what Begin returned before the credentials were checked. Without one, a sign-out everywhere during the
	// check is not noticed, and the event says so.
	Mark Mark
	// From is the token that this client already holds, if any: of its anonymous session, or of an earlier sign-in. That
	// session is superseded: its token is refused from now on and does not count as stolen. Its data moves to the new
	// session if it was anonymous or of the same subject, even if it has been ended for reuse or has expired.
	From   Token
	Auth   Authentication
	Client string // the OAuth client it is for
	Name   string // a label for people, at most 128 bytes
	Scopes []string
	Device Client
	// Origin is the session that the person made an API key in, if any: RevokeFrom on it ends the key, too.
	Origin SessionID
	// Audience are the services that an API key is for; none: any.
	Audience []string
	// Networks are where an API key may be used from; none: anywhere. At most 32.
	Networks []netip.Prefix
	// Rate is how many requests a minute an API key may make on each node; 0: any number.
	Rate int
	// Lifetime shortens the policy's absolute lifetime. It cannot lengthen it.
	Lifetime time.Duration
	// NoExpiry asks for an API key without an end. The policy must allow it (Absolute 0).
	NoExpiry bool
	// Data are the first values of the session's data, JSON by key. They win over what moves in from From.
	Data map[string]json.RawMessage

	sum *[32]byte // of the text of a key that was made elsewhere
}

// Issue makes a session (or an API key) and returns its first token. It is for the moment after a sign-in; see Begin for
// the moment before. When it returns nil the session is durable.
//
// Errors: ErrStaleSignIn, ErrSessionLimit, ErrBadRequest, *DataTooLargeError, ErrUnavailable.
func (a *Authority) Issue(ctx context.Context, r IssueRequest) (Issued, error) {
	if err := r.fill(); err != nil {
		return Issued{}, err
	}
	p, ok := a.policies[r.Policy]
	if !ok {
		return Issued{}, badRequest("there is no policy %q", r.Policy)
	}
	if err := p.Check(r.Kind == KindAPIKey); err != nil {
		return Issued{}, badRequest("policy %q is not for sessions: %v", r.Policy, err)
	}
	if r.NoExpiry && (p.Absolute != 0 || r.Kind != KindAPIKey) {
		return Issued{}, badRequest("policy %q does not allow what never expires", r.Policy)
	}
	if p.Absolute == 0 && !r.NoExpiry && r.Lifetime == 0 {
		return Issued{}, badRequest("policy %q has no end: give a lifetime, or ask for no expiry by name", r.Policy)
	}
	making, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	var stamp epochs
	if r.Subject != "" {
		var err error
		if stamp, err = a.admit(making, r.Tenant, r.Subject, r.Kind, r.Mark); err != nil {
			return Issued{}, err
		}
	}
	origin, err := a.originOf(making, &r)
	if err != nil {
		return Issued{}, err
	}
	old, err := a.take(making, &r)
	if err != nil {
		return Issued{}, err
	}
	got, err := a.createInPlace(ctx, making, &r, p, stamp, origin, old)
	if err != nil {
		a.reopenData(ctx, old)
		return Issued{}, err
	}
	if err := a.lookBack(ctx, got.Session, origin); err != nil {
		return Issued{}, err
	}
	if err := a.supersede(ctx, old, got.Session); err != nil {
		return Issued{}, err
	}
	a.rehearseLimit(ctx, got.Session)
	return got, nil
}

// fill sets the defaults and checks the request.
func (r *IssueRequest) fill() error {
	if r.Kind == 0 {
		r.Kind = KindSession
	}
	if r.Policy == "" {
		switch {
		case r.Kind == KindAPIKey:
			r.Policy = PolicyAPIKey
		case r.Subject == "":
			r.Policy = PolicyAnonymous
		default:
			r.Policy = PolicyBrowser
		}
	}
	if r.Kind != KindSession && r.Kind != KindAPIKey {
		return badRequest("kind %q cannot be issued", string(rune(r.Kind)))
	}
	if r.Subject == "" && (r.Kind != KindSession || len(r.Data) == 0) {
		return badRequest("subject is empty: only a session that holds data can be anonymous")
	}
	if r.Subject != "" {
		if err := checkSubject(r.Subject); err != nil {
			return err
		}
	}
	switch {
	case !plain(r.Client, store.MaxText):
		return badRequest("client: want at most %d bytes of UTF-8 without control characters", store.MaxText)
	case len(r.Name) > 128 || !utf8.ValidString(r.Name):
		return badRequest("name: over 128 bytes, or not UTF-8")
	case r.Lifetime < 0:
		return badRequest("lifetime: %v is negative", r.Lifetime)
	case r.Lifetime > 0 && r.Lifetime < time.Second:
		return badRequest("lifetime: %v is under a second", r.Lifetime)
	}
	if r.Kind != KindAPIKey && (r.Origin != "" || len(r.Audience) > 0 || len(r.Networks) > 0 || r.Rate != 0) {
		return badRequest("origin, audience, networks and rate are for API keys")
	}
	if len(r.Networks) > maxNetworks || slices.ContainsFunc(r.Networks, func(p netip.Prefix) bool { return !p.IsValid() }) {
		return badRequest("networks: want at most %d, as in 203.0.113.0/24", maxNetworks)
	}
	if r.Rate < 0 || r.Rate > 1_000_000 {
		return badRequest("rate: %d is not between 0 and 1000000 requests a minute", r.Rate)
	}
	if err := checkAudience(r.Audience); err != nil {
		return err
	}
	if err := checkNames("scope", r.Scopes, maxScopes); err != nil {
		return err
	}
	return checkNames("method", r.Auth.Methods, maxMethods)
}

// checkNames checks a list of scopes or methods.
func checkNames(what string, names []string, most int) error {
	if len(names) > most {
		return badRequest("%ss: %d of them, the most is %d", what, len(names), most)
	}
	for _, n := range names {
		if n == "" || len(n) > maxName || !utf8.ValidString(n) {
			return badRequest("%s: want 1 to %d bytes of UTF-8", what, maxName)
		}
	}
	return nil
}

func checkSubject(s string) error {
	if s == "" || len(s) > store.MaxText || !utf8.ValidString(s) || s[0] == 0 {
		return badRequest("subject: want 1 to %d bytes of UTF-8, not beginning with a zero byte", store.MaxText)
	}
	return nil
}

// createInPlace is create, where the subject may have one more. making is the context of a root that nothing is reserved
// for.
func (a *Authority) createInPlace(ctx, making context.Context, r *IssueRequest, p Policy, stamp epochs, origin store.ID, old *donor) (Issued, error) {
	now := a.now()
	var absolute int64
	if life := shorter(p.Absolute, r.Lifetime); life > 0 {
		absolute = now.Add(life).UnixMilli()
	}
	var random [14]byte
	rand.Read(random[:])
	id := store.NewRootID(store.BucketOf(absolute), random, r.Tenant, r.Subject)
	if r.sum != nil {
		id = importedID(*r.sum)
	}
	o := &opening{kind: r.Kind, tenant: r.Tenant, subject: r.Subject, id: id, stamp: stamp, imported: r.sum != nil}
	c, err := a.build(r, p, id, now, absolute, stamp, origin, old)
	if err != nil { // before anything makes room for it
		return Issued{}, err
	}
	if !a.counted(o) {
		return a.create(making, c)
	}
	if old != nil && old.live && old.exam.rec.ID.IsRoot() && old.exam.rec.Subject == r.Subject {
		o.replaces = old.exam.rec.ID
	}
	var got Issued
	err = a.reserved(ctx, o, func(ctx context.Context) (err error) {
		if o.replaced {
			old.live = false
		}
		got, err = a.create(ctx, c)
		return err
	})
	return got, err
}

// creation is a root that is to be written.
type creation struct {
	standpoint
	ops      []store.Op
	made     Issued
	imported bool
}

// build makes what create writes: the new session, its data and the event.
func (a *Authority) build(r *IssueRequest, p Policy, id store.ID, now time.Time, absolute int64, stamp epochs, origin store.ID, old *donor) (*creation, error) {
	secret := newSecret()
	verifier := opaque.Verifier(id, 1, &secret)
	if r.sum != nil {
		verifier = *r.sum
	}
	st := &state{
		generation: 1, verifier: verifier, renewed: now.UnixMilli(), stamp: stamp, op: newOp(),
		policy: r.Policy, name: r.Name, authAt: millis(r.Auth.At), methods: r.Auth.Methods, scopes: r.Scopes,
		device: r.Device.trimmed(),
		origin: origin, audience: r.Audience, rate: uint32(r.Rate),
	}
	for _, p := range r.Networks {
		st.networks = append(st.networks, p.Masked())
	}
	if st.authAt == 0 && r.Subject != "" {
		st.authAt = now.UnixMilli()
	}
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	rec := &store.Record{
		ID: id, Kind: byte(r.Kind), Tenant: r.Tenant, Subject: r.Subject, Client: r.Client,
		Created: now.UnixMilli(), Absolute: absolute, LastSeen: now.UnixMilli(),
	}
	x := exam{now: now, standpoint: standpoint{rec, st, p}}
	c := &creation{standpoint: x.standpoint, ops: []store.Op{a.put(rec, 0, payload)}, imported: r.sum != nil}
	d, err := old.dataFor(r)
	if err != nil {
		return nil, err
	}
	if len(d.values) > 0 {
		payload, err := d.encode()
		if err != nil {
			return nil, err
		}
		c.ops = append(c.ops, a.put(newDataRecord(rec), 0, payload))
	}
	c.ops = append(c.ops, store.Emit(x.event(createdEvent(r.Kind), "", createdDetail(r))))
	if c.made.Session = x.session(); !c.imported {
		c.made.Token = a.token(rec, 1, secret)
	}
	return c, nil
}

// create writes a new root: one Apply.
func (a *Authority) create(ctx context.Context, c *creation) (Issued, error) {
	if err := a.apply(ctx, c.rec.ID, a.wrote(c.rec.ID, c.state.op), c.ops...); err != nil {
		if err == errConflict && c.imported {
			return Issued{}, errImported
		}
		return Issued{}, unlikely(err) // 112 random bits came twice
	}
	return c.made, nil
}

var errImported = badRequest("this key was imported before")

var errIDTaken = errors.New("a random id is taken")

func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func createdEvent(k Kind) string {
	if k == KindAPIKey {
		return EventKeyCreated
	}
	return EventCreated
}

func createdDetail(r *IssueRequest) string {
	switch {
	case r.Subject == "":
		return "anonymous"
	case r.Mark.id.IsZero() && r.Kind == KindSession:
		return "policy " + r.Policy + "; without a mark from before the credential check"
	}
	return "policy " + r.Policy
}

// donor is the session that a client held before it signed in.
type donor struct {
	exam *exam
	live bool // its token is still good: it is superseded
	data *data
}

// take looks at the session that the request comes from. If that is live, nobody can write its data any more for a
// while: what is copied is all there is. A token that is not ours, or whose session is unknown, is passed over: it may
// be anything that somebody planted.
func (a *Authority) take(ctx context.Context, r *IssueRequest) (*donor, error) {
	if r.From.IsZero() {
		return nil, nil
	}
	x, err := a.genuine(ctx, r.From)
	if errors.Is(err, ErrInvalidToken) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if Kind(x.rec.Kind) != KindSession || x.rec.Tenant != r.Tenant || r.Kind != KindSession {
		return nil, nil
	}
	old := &donor{exam: x}
	why, cause, at := x.standing()
	switch a.judge(x, clientHash{}) {
	case current, graced, handOut, lostAnswer:
		old.live = why == ""
	}
	ours := x.rec.Subject == "" || x.rec.Subject == r.Subject
	switch {
	case x.rec.ID.IsChild(): // a session handed over from another host: the data stays with the one there
	case old.live && ours:
		old.data, err = a.closeData(ctx, x.rec)
	case !old.live && ours && x.leavesData(why, cause, at):
		old.data, _, err = a.readData(ctx, x.rec)
	}
	return old, err
}

// leavesData reports whether the data of a session that is over may still move. It does if the session was ended for
// reuse, or by time: its person signs in again. And if a sign-in replaced it a moment ago: the answer to that may have
// been lost, and this is the second try. Who signed out, though, meant it.
func (x *exam) leavesData(why, cause Reason, at time.Time) bool {
	switch {
	case why == ReasonSuperseded:
		return x.now.Sub(at) < moved
	case cause == ReasonSignedOut, why == ReasonFrozen: // on hold it keeps what it has: it may be taken off again
		return false
	}
	return x.rec.Subject != "" // an anonymous session has no person who could prove anything
}

// dataFor returns the values that the new session starts with.
func (d *donor) dataFor(r *IssueRequest) (*data, error) {
	out := &data{values: make(map[string]value)}
	if d != nil && d.data != nil {
		for k, v := range d.data.values {
			out.values[k] = value{json: v.json, version: 1}
			out.size += cost(k, v.json)
		}
	}
	for k, v := range r.Data {
		if err := out.set(k, v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// supersede ends the session that the new one replaces: the last of the steps, so that a crash before it leaves the old
// session with its data closed for a while, and the new one without a holder. The data stays where it is, sealed and out of reach,
// for a second try of a sign-in whose answer was lost.
func (a *Authority) supersede(ctx context.Context, old *donor, by *Session) error {
	if old == nil || !old.live {
		return nil
	}
	x := old.exam
	err := a.apply(ctx, x.rec.ID.Root(), nil,
		store.Mark(x.rec.ID, a.now().UnixMilli(), string(ReasonSuperseded)),
		store.Emit(x.event(EventSuperseded, ReasonSuperseded, "by "+string(by.ID))))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// reopenData lets the data be written again after a sign-in that failed. If that fails, too, time does it.
func (a *Authority) reopenData(ctx context.Context, old *donor) {
	if old == nil || !old.live || old.data == nil {
		return
	}
	old.data.closed = 0
	if err := a.writeData(ctx, old.exam.rec, old.data); err != nil {
		a.log.Debug("session data stays closed for a moment", "session", newSessionID(KindSession, old.exam.rec.ID), "err", err)
	}
}
