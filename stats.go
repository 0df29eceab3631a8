package afterlogin

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Stats counts what an Authority has done since New. The counts are of this authority alone, not of others on the same
// store, and name nobody.
type Stats struct {
	Hits        uint64 // validations that the cache answered
	Misses      uint64 // validations that read the store
	LeaseLosses uint64 // those of them that the cache could have answered, had the store been heard from

	// Validations counts the answers of Validate.
	Validations Validations
	// Refused counts refusals by their reason: of Validate, and of whatever else is done with a token (Rotate, StepUp,
	// Refresh, Redeem, RedeemTicket). Every reason of Reasons is in it.
	Refused map[Reason]uint64
	// Grace counts answers that were given to a token within its grace, after it was replaced.
	Grace uint64
	// Forgiven counts replaced tokens that were good once more, since the answer with their successor was lost.
	Forgiven uint64

	// Issued counts what was made, Renewed what got a new token, and Reused what was used after it had been replaced and
	// for too long: a copy, and so perhaps a theft. All by kind.
	Issued, Renewed, Reused map[Kind]uint64
	StepUps                 uint64
	Revoked                 Revocations

	Touches TouchStats
	Janitor JanitorStats
	Cache   CacheStats
}

// Validations counts the answers of Validate by what they were.
type Validations struct {
	Valid       uint64
	Refused     uint64
	Unavailable uint64 // not known: the store did not answer
	Canceled    uint64 // not known: the caller went away within a second, before there was an answer
	Limited     uint64 // good, but used more often than it may be
}

// Revocations counts what was ended on purpose, by how much ended at once.
type Revocations struct {
	One        uint64 // one session, key, grant or other credential, and what was below it
	Sessions   uint64 // all sessions of a subject
	Everything uint64 // all sessions and API keys of a subject
	Others     uint64 // all sessions of a subject but one
	Origin     uint64 // credentials that ended since the session they came from was ended with all that came from it
}

// TouchStats tells of last uses that are written behind the requests.
type TouchStats struct {
	Pending int    // waiting to be written
	Lost    uint64 // never written: the store did not keep up
}

// JanitorStats tells of the cleaning up of what has expired.
type JanitorStats struct {
	Last     time.Time     // the end of the last cleaning that succeeded; zero: none yet
	Took     time.Duration // how long that took
	Failures uint64
	Backlog  int // hours that are due and have not been cleaned, of those that have come due since New
}

// CacheStats tells of the sessions kept in memory.
type CacheStats struct {
	Entries   int
	Evictions uint64 // how often one had to go for another
}

// ReasonOther stands in Stats for a reason that is not among Reasons.
const ReasonOther Reason = "other"

// reasons are all reasons that a refusal can have, and those that an ended session can. stripe.refuse knows the places of
// the first ones.
var reasons = [...]Reason{
	ReasonMalformed, ReasonWrongKind, ReasonForged, ReasonUnknown, ReasonRevoked, ReasonSignedOutAll, ReasonSuperseded, ReasonExpired,
	ReasonIdle, ReasonWrongTenant, ReasonWrongClient, ReasonWrongAudience, ReasonWrongNetwork, ReasonWrongTarget, ReasonUsed,
	ReasonReused, ReasonRenew, ReasonRolledBack, ReasonScope, ReasonStaleAuth, ReasonStaleSignIn, ReasonDuplicate, ReasonInURL,
	ReasonSignedOut, ReasonAdministrator, ReasonPasswordChanged, ReasonReported, ReasonLimit, ReasonNotMade, ReasonFrozen, ReasonOrigin,
	ReasonNoCredential, ReasonRestored, ReasonUnreadable,
	ReasonOther, // the last one
}

var reasonIndex = func() map[Reason]int {
	m := make(map[Reason]int, len(reasons))
	for i, r := range reasons {
		m[r] = i
	}
	return m
}()

// Reasons returns every reason by which Stats counts, in a fixed order. The last one is ReasonOther.
func Reasons() []Reason { return append([]Reason(nil), reasons[:]...) }

// countedKinds are those by which Stats counts.
var countedKinds = [...]Kind{KindSession, KindAPIKey, KindRefresh, KindAccess, KindJWT, KindCode, KindTicket, KindClient}

type byKind [len(countedKinds)]atomic.Uint64

func (b *byKind) add(k Kind) {
	for i, c := range countedKinds {
		if c == k {
			b[i].Add(1)
			return
		}
	}
}

func (b *byKind) counts() map[Kind]uint64 {
	m := make(map[Kind]uint64, len(countedKinds))
	for i, k := range countedKinds {
		m[k] = b[i].Load()
	}
	return m
}

// counts is what an authority counts besides what its cache does by itself. A validation that the cache answers touches
// nothing of it.
type counts struct {
	stripes [8]stripe // of what strangers can cause as fast as they can send: in several places, so that cores do not wait for each other

	misses                  atomic.Uint64
	valid                   atomic.Uint64 // what is good and not among shard.hits
	grace, forgiven         atomic.Uint64
	issued, renewed, reused byKind
	stepUps                 atomic.Uint64

	one, sessions, everything, others, origin atomic.Uint64
}

type stripe struct {
	refused     [len(reasons)]atomic.Uint64
	no          atomic.Uint64
	unavailable atomic.Uint64
	canceled    atomic.Uint64
	limited     atomic.Uint64
	_           [128]byte
}

func (c *counts) stripe() *stripe { return &c.stripes[rand.Uint32()%uint32(len(c.stripes))] }

// no counts a validation that ended with the error, and returns that.
func (c *counts) no(ctx context.Context, err error) error {
	return c.noAfter(ctx, 0, err)
}

// patience is how long a store may take that answers. Who hangs up sooner says nothing of it: anybody can.
const patience = time.Second

// noAfter is no for what has waited for the store.
func (c *counts) noAfter(ctx context.Context, waited time.Duration, err error) error {
	s := c.stripe()
	var r *Refusal
	switch e := err.(type) {
	case *Refusal:
		r = e
	case *LimitError:
		s.limited.Add(1)
		return err
	default:
		if !errors.As(err, &r) {
			if errors.Is(ctx.Err(), context.Canceled) && waited < patience {
				s.canceled.Add(1)
			} else {
				s.unavailable.Add(1)
			}
			return err
		}
	}
	s.no.Add(1)
	s.refuse(r.Reason)
	return err
}

// noted counts the refusal, if the error is one, of something other than a validation.
func (c *counts) noted(err *error) {
	if *err == nil {
		return
	}
	if r := ReasonOf(*err); r != "" {
		c.stripe().refuse(r)
	}
}

// refuse counts in the place of the reason in reasons.
func (s *stripe) refuse(r Reason) {
	switch r { // those of junk without a look at the map
	case ReasonMalformed:
		s.refused[0].Add(1)
		return
	case ReasonForged:
		s.refused[2].Add(1)
		return
	}
	i, ok := reasonIndex[r]
	if !ok {
		i = len(reasons) - 1
	}
	s.refused[i].Add(1)
}

// applied counts what the operations that were just made durable have done.
func (c *counts) applied(ops []store.Op) {
	for i := range ops {
		switch op := &ops[i]; op.Kind {
		case store.OpPut:
			if op.Expect == 0 && !neverMade(op.Record) {
				c.issued.add(Kind(op.Record.Kind))
			}
		case store.OpEvent:
			c.event(op.Event.Type, Reason(op.Event.Reason), op.Event.Detail)
		}
	}
}

// event counts an event by its type, which may carry the kind of the root.
func (c *counts) event(typ string, why Reason, detail string) {
	typ, _, _ = strings.Cut(typ, "@")
	_, what, _ := strings.Cut(typ, ".")
	switch what {
	case "renewed":
		c.renewed.add(eventKind(typ))
	case "stepped_up":
		c.stepUps.Add(1)
	case "reuse_detected":
		c.reused.add(eventKind(typ))
	case "replayed":
		c.reused.add(KindCode)
	case "revoked":
		if why == ReasonOrigin {
			c.origin.Add(1)
		} else {
			c.one.Add(1)
		}
	case "signed_out":
		switch detail, _, _ = strings.Cut(detail, actorMark); {
		case detail == detailEverything:
			c.everything.Add(1)
		case strings.HasPrefix(detail, detailOthers):
			c.others.Add(1)
		default:
			c.sessions.Add(1)
		}
	}
}

// Stats returns the counts. They are not of one moment.
func (a *Authority) Stats() Stats {
	c := &a.counts
	s := Stats{
		Misses: c.misses.Load(),
		Grace:  c.grace.Load(), Forgiven: c.forgiven.Load(),
		Refused: make(map[Reason]uint64, len(reasons)),
		Issued:  c.issued.counts(), Renewed: c.renewed.counts(), Reused: c.reused.counts(), StepUps: c.stepUps.Load(),
		Revoked: Revocations{
			One: c.one.Load(), Sessions: c.sessions.Load(), Everything: c.everything.Load(), Others: c.others.Load(), Origin: c.origin.Load(),
		},
		Touches: a.touches.stats(),
		Janitor: a.cleaned.stats(a.dueHour(a.now())),
	}
	for i := range a.cache.shards {
		sh := &a.cache.shards[i]
		hits := sh.hits.Load()
		s.Hits += hits + sh.partial.Load()
		s.Validations.Valid += hits
		s.LeaseLosses += sh.unleased.Load()
		sh.mu.RLock()
		s.Cache.Entries += len(sh.entries)
		s.Cache.Evictions += sh.evictions
		sh.mu.RUnlock()
	}
	s.Validations.Valid += c.valid.Load()
	for i := range c.stripes {
		st := &c.stripes[i]
		s.Validations.Refused += st.no.Load()
		s.Validations.Unavailable += st.unavailable.Load()
		s.Validations.Canceled += st.canceled.Load()
		s.Validations.Limited += st.limited.Load()
		for j, r := range reasons {
			s.Refused[r] += st.refused[j].Load()
		}
	}
	return s
}
