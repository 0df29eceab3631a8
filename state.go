package afterlogin

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/store"
)

// Kinds of records that no token names.
const (
	kindData    = 'd'
	kindSubject = 'u'
)

// maxState is the greatest size of a credential's payload before sealing, in bytes.
const maxState = 8<<10 - seal.Overhead

// The most methods and scopes of a credential, each of at most maxName bytes.
const (
	maxMethods = 20
	maxScopes  = 100
	maxName    = 128
)

// state is the payload of a credential's record: everything that the store need not know.
type state struct {
	generation uint32
	verifier   [opaque.VerifierSize]byte
	renewed    int64  // when the current generation was made
	replaced   uint8  // how many lost answers in a row were forgiven
	stamp      epochs // the subject's epochs at sign-in
	op         opID   // the last write, so that its writer can tell after an unknown outcome
	ring       []link // the last rotations, oldest first, at most ringSize

	policy  string
	name    string
	authAt  int64
	methods []string
	scopes  []string
	device  Client

	// above are the children of the same root that this one lives under, nearest first: an access token under its
	// grant, or under the access token that it was exchanged for. The root is always above, too.
	above    []childRef
	origin   store.ID // the root that this root came from, for display and for RevokeFrom
	used     int64    // when a code or a ticket was redeemed; 0: not yet
	made     store.ID // what a code was redeemed for; of an API key: its successor
	madeBy   uint32   // the generation of the grant that an access token was made with; 0: of none
	minted   []mint   // the access tokens made with the current generation of a grant
	until    int64    // when an API key that has a successor would have ended without it; 0: never
	rate     uint32   // requests a minute; 0: any number
	networks []netip.Prefix
	audience []string
	actor    string
	detail   string // what the kind needs besides: the request of a code, the target of a ticket, a client's settings

	frozen    int64 // since when it is on hold; 0: it is not
	frozenFor Reason
}

// childRef names a child within its root: its bucket and its random part.
type childRef [9]byte

func refOf(id store.ID) (c childRef) {
	b := id.Append(make([]byte, 0, 26))
	copy(c[:], b[17:])
	return c
}

func (c childRef) under(root store.ID) store.ID {
	bucket := store.Bucket(c[0])<<16 | store.Bucket(c[1])<<8 | store.Bucket(c[2])
	return store.NewChildID(root, bucket, [6]byte(c[3:]))
}

// mint remembers an access token that came with a generation of a refresh token, and for which request, so that whoever
// lost the answer gets the same token again.
type mint struct {
	child childRef
	want  [8]byte
}

// Limits of what stands in a payload, and sizes of its parts.
const (
	linkSize    = 4 + 4 + opaque.NonceSize + 1 + 8 + 8 + opaque.VerifierSize
	mintSize    = 9 + 8
	frozenSize  = 8 + 2 + store.MaxReason
	maxAbove    = 4 // how deep children may stand below each other
	maxMinted   = 8 // access tokens of one generation
	maxNetworks = 32
	maxAudience = 16
	maxDetail   = 5 << 10
)

// link remembers one rotation: how generation came out of parent, which is what can be told again to a client that lost
// the answer, and when that retired the generation before.
type link struct {
	generation uint32
	parent     uint32 // the generation whose secret the successor was derived from; 0: from none, a fresh secret
	nonce      [opaque.NonceSize]byte
	key        uint8 // the rotation key
	at         int64 // when: the generation before this one was retired then
	client     clientHash
	// retired is the verifier of the generation before this one: an old token is believed because of its secret, not
	// only because of its MAC, whose key may leak.
	retired [opaque.VerifierSize]byte
}

// epochs are a subject's two epochs, or a session's stamp of them: milliseconds ‖ 16 random bits. They are only ever
// compared for equality.
type epochs struct{ sessions, everything uint64 }

// opID names one write.
type opID [8]byte

// The layouts of payloads. A credential's of layout 1, which ends with the user agent, is read and never written. That of
// layout 3 is of one that is on hold, and says so at its end.
const (
	stateLayout      = 1
	credentialLayout = 2
	frozenLayout     = 3
)

func (s *state) encode() ([]byte, error) {
	switch {
	case len(s.methods) > maxMethods || len(s.scopes) > maxScopes:
		return nil, badRequest("over %d methods, or over %d scopes", maxMethods, maxScopes)
	case len(s.above) > maxAbove || len(s.minted) > maxMinted || len(s.networks) > maxNetworks || len(s.audience) > maxAudience:
		return nil, badRequest("over %d networks, over %d audiences, or over %d tokens below each other", maxNetworks, maxAudience, maxAbove)
	}
	b := make([]byte, 0, 512)
	layout := byte(credentialLayout)
	if s.frozen != 0 {
		layout = frozenLayout
	}
	b = append(b, layout)
	b = binary.BigEndian.AppendUint32(b, s.generation)
	b = append(b, s.verifier[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.renewed))
	b = append(b, s.replaced)
	b = binary.BigEndian.AppendUint64(b, s.stamp.sessions)
	b = binary.BigEndian.AppendUint64(b, s.stamp.everything)
	b = append(b, s.op[:]...)
	b = append(b, byte(len(s.ring)))
	for i := range s.ring {
		l := &s.ring[i]
		b = binary.BigEndian.AppendUint32(b, l.generation)
		b = binary.BigEndian.AppendUint32(b, l.parent)
		b = append(b, l.nonce[:]...)
		b = append(b, l.key)
		b = binary.BigEndian.AppendUint64(b, uint64(l.at))
		b = append(b, l.client[:]...)
		b = append(b, l.retired[:]...)
	}
	b = appendText(b, s.policy)
	b = appendText(b, s.name)
	b = binary.BigEndian.AppendUint64(b, uint64(s.authAt))
	b = appendTexts(b, s.methods)
	b = appendTexts(b, s.scopes)
	addr, _ := s.device.Addr.MarshalBinary()
	b = appendText(b, string(addr))
	b = appendText(b, s.device.UserAgent)
	b = append(b, byte(len(s.above)))
	for i := range s.above {
		b = append(b, s.above[i][:]...)
	}
	b = appendText(b, string(s.origin.Append(nil)))
	b = binary.BigEndian.AppendUint64(b, uint64(s.used))
	b = appendText(b, string(s.made.Append(nil)))
	b = binary.BigEndian.AppendUint32(b, s.madeBy)
	b = append(b, byte(len(s.minted)))
	for i := range s.minted {
		b = append(append(b, s.minted[i].child[:]...), s.minted[i].want[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(s.until))
	b = binary.BigEndian.AppendUint32(b, s.rate)
	b = append(b, byte(len(s.networks)))
	for _, p := range s.networks {
		text, _ := p.MarshalBinary()
		b = appendText(b, string(text))
	}
	b = appendTexts(b, s.audience)
	b = appendText(b, s.actor)
	b = appendText(b, s.detail)
	if s.frozen != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(s.frozen))
		b = appendText(b, string(s.frozenFor))
	}
	// What renewals, refreshes and a hold add must fit, too: a session must not become one that cannot be renewed.
	if s.generation == 1 && s.frozen == 0 && len(b) > maxState-frozenSize {
		return nil, badRequest("session of %d bytes, limit %d: fewer or shorter scopes, methods or names", len(b), maxState-frozenSize)
	}
	if len(b)+(ringSize-len(s.ring))*linkSize+(maxMinted-len(s.minted))*mintSize > maxState {
		return nil, badRequest("session of %d bytes, limit %d: fewer or shorter scopes, methods or names", len(b), maxState)
	}
	return b, nil
}

var errBadState = errors.New("bad payload")

func decodeState(b []byte) (*state, error) {
	r := reader{b: b}
	layout := r.byte()
	if layout < stateLayout || layout > frozenLayout {
		return nil, errBadState
	}
	s := &state{generation: r.uint32()}
	r.copy(s.verifier[:])
	s.renewed = int64(r.uint64())
	s.replaced = r.byte()
	s.stamp = epochs{r.uint64(), r.uint64()}
	r.copy(s.op[:])
	s.ring = make([]link, r.count(ringSize), ringSize)
	for i := range s.ring {
		l := &s.ring[i]
		l.generation, l.parent = r.uint32(), r.uint32()
		r.copy(l.nonce[:])
		l.key = r.byte()
		l.at = int64(r.uint64())
		r.copy(l.client[:])
		r.copy(l.retired[:])
	}
	s.policy, s.name = r.text(), r.text()
	s.authAt = int64(r.uint64())
	s.methods, s.scopes = r.texts(), r.texts()
	if addr := r.text(); addr != "" {
		var a netip.Addr
		if a.UnmarshalBinary([]byte(addr)) != nil {
			return nil, errBadState
		}
		s.device.Addr = a
	}
	s.device.UserAgent = r.text()
	if layout >= credentialLayout && !s.decodeRest(&r) {
		return nil, errBadState
	}
	if layout == frozenLayout {
		s.frozen, s.frozenFor = int64(r.uint64()), Reason(r.text())
		if s.frozen == 0 {
			return nil, errBadState
		}
	}
	if r.failed || len(r.b) != 0 || s.generation == 0 {
		return nil, errBadState
	}
	return s, nil
}

// decodeRest reads what layout 2 has besides.
func (s *state) decodeRest(r *reader) bool {
	if n := r.count(maxAbove); n > 0 {
		s.above = make([]childRef, n)
	}
	for i := range s.above {
		r.copy(s.above[i][:])
	}
	s.origin = r.id()
	s.used = int64(r.uint64())
	s.made = r.id()
	s.madeBy = r.uint32()
	if n := r.count(maxMinted); n > 0 {
		s.minted = make([]mint, n)
	}
	for i := range s.minted {
		r.copy(s.minted[i].child[:])
		r.copy(s.minted[i].want[:])
	}
	s.until = int64(r.uint64())
	s.rate = r.uint32()
	for range r.count(maxNetworks) {
		var p netip.Prefix
		if p.UnmarshalBinary([]byte(r.text())) != nil {
			return false
		}
		s.networks = append(s.networks, p)
	}
	s.audience = r.texts()
	s.actor, s.detail = r.text(), r.text()
	return !r.failed
}

// link returns the link that made the generation, or nil if the ring has none.
func (s *state) link(generation uint32) *link {
	for i := range s.ring {
		if s.ring[i].generation == generation {
			return &s.ring[i]
		}
	}
	return nil
}

// graceEnd returns when the grace of a generation before the current one ends, if nobody uses the current one; zero if
// the ring no longer knows. Where a lost answer was forgiven, the client that came back brings its other requests along,
// and they need the grace that the first one had: it starts anew, at most maxReplaced times.
func (s *state) graceEnd(generation uint32, p Policy) int64 {
	var at int64
	for i := range s.ring {
		if l := &s.ring[i]; l.generation == generation+1 || l.parent == generation {
			at = max(at, l.at)
		}
	}
	if at == 0 {
		return 0
	}
	return at + p.Grace.Milliseconds()
}

// full reports whether one more rotation would push a token out of the ring that is still good.
func (s *state) full(now int64, p Policy) bool {
	return len(s.ring) == ringSize && now < s.graceEnd(s.ring[0].generation-1, p)
}

// clone returns a copy whose ring can be changed.
func (s *state) clone() *state {
	c := *s
	c.ring = append(make([]link, 0, ringSize+1), s.ring...)
	c.minted = slices.Clone(s.minted)
	return &c
}

// subjectState is the payload of a subject's record.
type subjectState struct {
	epochs epochs
	// bumps counts how often the subject was signed out. A sign-in that began when the subject had no record yet is
	// stale if this is not zero.
	bumps uint32
	// except is the one session that the last "sign out everywhere else" spared, and the stamp that it had.
	except store.ID
	stamp  epochs
	op     opID
	past   []byte // the last times that the subject was signed out: see past.go. Only read for whoever asks why
	seats  []byte // what counts against session limits: see seats.go. Only read at sign-ins
}

// The layouts of a subject's payload. That of layout 1, which knows nothing of the past, is read and never written. That
// of layout 3 has the lists of session limits at its end.
const (
	firstSubjectLayout = 1
	subjectLayout      = 2
	seatedLayout       = 3
)

func (s *subjectState) encode() []byte {
	layout := byte(subjectLayout)
	if len(s.seats) > 0 {
		layout = seatedLayout
	}
	b := append(make([]byte, 0, 128+len(s.past)+len(s.seats)), layout)
	b = binary.BigEndian.AppendUint64(b, s.epochs.sessions)
	b = binary.BigEndian.AppendUint64(b, s.epochs.everything)
	b = binary.BigEndian.AppendUint32(b, s.bumps)
	b = appendText(b, string(s.except.Append(nil)))
	b = binary.BigEndian.AppendUint64(b, s.stamp.sessions)
	b = binary.BigEndian.AppendUint64(b, s.stamp.everything)
	b = append(b, s.op[:]...)
	b = appendBytes(b, s.past)
	if len(s.seats) > 0 {
		b = appendBytes(b, s.seats)
	}
	return b
}

func decodeSubject(b []byte) (*subjectState, error) {
	r := reader{b: b}
	layout := r.byte()
	if layout < firstSubjectLayout || layout > seatedLayout {
		return nil, errBadState
	}
	s := &subjectState{epochs: epochs{r.uint64(), r.uint64()}, bumps: r.uint32()}
	s.except = r.id()
	s.stamp = epochs{r.uint64(), r.uint64()}
	r.copy(s.op[:])
	if layout >= subjectLayout {
		s.past = r.bytes()
	}
	if layout == seatedLayout {
		if s.seats = r.bytes(); len(s.seats) == 0 {
			return nil, errBadState
		}
	}
	if r.failed || len(r.b) != 0 {
		return nil, errBadState
	}
	return s, nil
}

// admits reports whether a credential of the kind with the stamp is still signed in.
func (s *subjectState) admits(kind Kind, root store.ID, stamp epochs) bool {
	if stamp.everything != s.epochs.everything {
		return false
	}
	return kind == KindAPIKey || stamp.sessions == s.epochs.sessions ||
		root == s.except && stamp == s.stamp
}
