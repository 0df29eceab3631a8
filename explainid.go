package afterlogin

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// ExplainID tells of the credential with the id what Explain tells of a token: all but whether a certain token of it is
// the current one. Errors: ErrNoSession, ErrBadSessionID, ErrUnavailable.
func (a *Authority) ExplainID(ctx context.Context, id SessionID) (*Explanation, error) {
	rid, err := id.parse()
	if err != nil {
		return nil, err
	}
	x := &exam{now: a.now()}
	if err := a.read(ctx, x, rid); err != nil {
		return nil, err
	}
	if x.rec == nil || Kind(x.rec.Kind) == kindData || Kind(x.rec.Kind) == KindEntry {
		return nil, ErrNoSession
	}
	return a.explainStanding(x, &Explanation{At: x.now}), nil
}

// describe fills in what is known of the credential, whichever token of it is presented.
func (e *Explanation) describe(a *Authority, x *exam) {
	e.Session = x.described()
	e.timers(x)
	for i := range x.above {
		up := &exam{now: x.now, standpoint: x.above[i], above: x.above[i+1:], subject: x.subject}
		e.Above = append(e.Above, up.described())
		e.timers(up)
	}
	for _, l := range x.state.ring {
		e.Rotations = append(e.Rotations, Rotation{Generation: l.generation, At: fromMillis(l.at), Fresh: l.parent == 0})
	}
	e.Forgiven = int(x.state.replaced)
	c, leased := a.held(x.rec.ID, x.now)
	e.Cached = c != nil && leased
}

// timers adds those of the examined credential itself.
func (e *Explanation) timers(x *exam) {
	r, p, id := x.rec, x.policy, newSessionID(Kind(x.rec.Kind), x.rec.ID)
	add := func(name string, ms int64) {
		if ms == 0 {
			return
		}
		at := fromMillis(ms)
		e.Timers = append(e.Timers, Timer{Of: id, Name: name, At: at, Left: at.Sub(x.now)})
	}
	if p.Idle > 0 {
		add("idle", r.LastSeen+p.Idle.Milliseconds())
	}
	add("absolute", r.Absolute)
	if p.Renewal > 0 {
		add("renewal", x.state.renewed+p.Renewal.Milliseconds())
	}
	if n := len(x.state.ring); n > 0 && p.Grace > 0 {
		if at := x.state.ring[n-1].at + p.Grace.Milliseconds(); at > x.now.UnixMilli() {
			add("grace", at)
		}
	}
}

// minPrefix is how many characters behind the underscore FindPrefix needs: the first four tell little but the hour that a
// session ends in.
const minPrefix = 6

// FindPrefix returns up to limit roots of the tenant whose handle (ses_…, key_…, grant_…) begins with the text, or of
// which a token begins with it (als_…), ended or not: for what somebody copied half of, or found in a log. At least 6
// characters behind the underscore are needed. What stands behind the id in a token is not looked at, so that a token that
// is pasted whole gives nothing away; of a token below a root, its root is found.
//
// Errors: ErrBadRequest, ErrUnavailable.
func (a *Authority) FindPrefix(ctx context.Context, tenant uint32, prefix string, limit int) ([]*Session, error) {
	if limit < 1 || limit > 1000 {
		return nil, badRequest("limit: %d is not between 1 and 1000", limit)
	}
	bits, n, kind, err := prefixBits(prefix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	from, err := store.ParseID(bits[:])
	if err != nil {
		return nil, badRequest("prefix: not of an id")
	}
	var out []*Session
	rs, err := a.store.Get(ctx, from) // what is listed comes after it
	if err != nil {
		return nil, unavailable("read", err)
	}
	subjects := make(map[string]*subjectState)
	add := func(r *store.Record) error {
		if r.Tenant != tenant || Kind(r.Kind) == KindEntry || kind != 0 && Kind(r.Kind) != kind {
			return nil
		}
		s, err := a.listed(ctx, r, subjects)
		if err == nil {
			out = append(out, s)
		}
		return err
	}
	if rs[0] != nil {
		if err := add(rs[0]); err != nil {
			return nil, err
		}
	}
	looked := 0
	for r, err := range a.store.List(ctx, store.Query{Tenant: tenant, After: from}) {
		if err != nil {
			return nil, unavailable("list", err)
		}
		if looked++; len(out) == limit || looked > pageWork || !hasBits(r.ID, bits, n) {
			break
		}
		if err := add(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// prefixBits returns the first n bits of the ids that the text is the beginning of, and what kind of root a handle names.
// A token may be of anything below a root, and tells no kind.
func prefixBits(prefix string) (bits [17]byte, n int, kind Kind, err error) {
	bad := func(why string) ([17]byte, int, Kind, error) {
		return bits, 0, 0, badRequest("prefix: %s; want the beginning of a handle, as ses_AbCdEfGh, or of a token, as als_AQEHb9Bk", why)
	}
	head, text, ok := strings.Cut(prefix, "_")
	if !ok || len(prefix) > opaque.ChildLength {
		return bad("not of an id")
	}
	skip := 0
	switch {
	case len(head) == 3 && strings.HasPrefix(head, "al"):
		skip = 2 // layout and key
	default:
		for k, w := range kinds {
			if w.handle == head+"_" {
				kind = k
			}
		}
		if kind == 0 {
			return bad("begins like no id")
		}
		switch kind { // those that are never roots are found by their root
		case KindAccess, KindCode, KindTicket, KindJWT, KindRefresh:
			kind = 0
		}
	}
	if len(text) < minPrefix+skip {
		return bad("too short to tell anything")
	}
	text = text[:min(len(text), ((skip+17)*8+5)/6)]
	n = min(len(text)*6-skip*8, len(bits)*8)
	padded := text + strings.Repeat("A", -len(text)&3)
	b, err := base64.RawURLEncoding.DecodeString(padded)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return bad("not base64url")
	}
	copy(bits[:], b[skip:])
	for i := n; i < len(bits)*8; i++ {
		bits[i/8] &^= 0x80 >> (i % 8)
	}
	return bits, n, kind, nil
}

// hasBits reports whether the id begins with the bits.
func hasBits(id store.ID, bits [17]byte, n int) bool {
	b := id.Append(make([]byte, 0, 26))
	for i := range n {
		if (b[i/8]^bits[i/8])&(0x80>>(i%8)) != 0 {
			return false
		}
	}
	return true
}
