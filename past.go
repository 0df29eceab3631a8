package afterlogin

import (
	"encoding/binary"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// maxPast is how many sign-outs a subject's record remembers.
const maxPast = 8

// signOut is one time that a subject was signed out everywhere, or everywhere else: what the epochs became, and why.
// When it was can be read from the epoch.
type signOut struct {
	epochs epochs
	spared uint64 // the hash of the id of the one session that was spared; 0: none
	why    Reason
}

// remember adds a sign-out to what the record knows of the past, and forgets the oldest.
func (s *subjectState) remember(why Reason) {
	past := s.signOuts()
	if len(past) == maxPast {
		past = past[1:]
	}
	n := signOut{epochs: s.epochs, why: why}
	if !s.except.IsZero() {
		n.spared = s.except.Hash()
	}
	s.past = nil
	for _, o := range append(past, n) {
		s.past = binary.BigEndian.AppendUint64(s.past, o.epochs.sessions)
		s.past = binary.BigEndian.AppendUint64(s.past, o.epochs.everything)
		s.past = binary.BigEndian.AppendUint64(s.past, o.spared)
		s.past = appendText(s.past, string(o.why))
	}
}

// signOuts are the sign-outs that the record remembers, the oldest first.
func (s *subjectState) signOuts() (out []signOut) {
	r := reader{b: s.past}
	for len(r.b) > 0 && !r.failed && len(out) < maxPast {
		o := signOut{epochs: epochs{r.uint64(), r.uint64()}, spared: r.uint64(), why: Reason(r.text())}
		if !r.failed {
			out = append(out, o)
		}
	}
	return out
}

// ending tells which sign-out ended a root of the kind with the stamp: why, and when. The reason is empty if the record
// does not remember it; the time is then that of the look.
func (s *subjectState) ending(kind Kind, root store.ID, stamp epochs, now time.Time) (Reason, time.Time) {
	past := s.signOuts()
	for i, o := range past {
		ended := o.epochs.everything > stamp.everything || kind != KindAPIKey && o.epochs.sessions > stamp.sessions
		if !ended || o.spared != 0 && o.spared == root.Hash() {
			continue
		}
		if i == 0 && int(s.bumps) > len(past) {
			break // it may have been one that is forgotten
		}
		at := o.epochs.sessions
		if kind == KindAPIKey {
			at = o.epochs.everything
		}
		return o.why, fromMillis(min(int64(at>>16), now.UnixMilli()))
	}
	return "", now
}
