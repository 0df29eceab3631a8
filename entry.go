package afterlogin

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/store"
)

// An Entry is a named record that whoever is above the core keeps beside the sessions, in the same store and with the
// same guarantees: a list of users, what was heard from another server. The core knows nothing of what it says. Its
// detail is sealed; its name is a column that whoever reads the store can see.
type Entry struct {
	Tenant  uint32
	Realm   string // which list it is in
	Name    string
	Detail  json.RawMessage
	Version uint64
	Created time.Time
	Until   time.Time // zero: for ever

	record *store.Record
}

// EntryRequest says what entry to make.
type EntryRequest struct {
	Tenant uint32
	// Realm is the list it is in: 1 to 32 of a to z, 0 to 9 and -.
	Realm string
	// Name is unique in the realm: 1 to 256 bytes of UTF-8.
	Name string
	// Detail is JSON of at most 5 KiB.
	Detail json.RawMessage
	// Until makes it a temporary one, which is gone at the end of that day (UTC), at most 400 days ahead. A temporary
	// entry is not in Entries, and is found with TemporaryEntries. Zero: for ever, as its name is.
	Until time.Time
}

// maxTemporary is how far ahead a temporary entry may reach: as far as a session can.
const maxTemporary = 400 * day

// Errors of entries.
var (
	// ErrNoEntry is returned for a name that nobody has.
	ErrNoEntry = errors.New("no such entry")
	// ErrEntryExists is returned by AddEntry.
	ErrEntryExists = errors.New("there is an entry of this name")
	// ErrEntryChanged is returned by ChangeEntry if the version is not the current one.
	ErrEntryChanged = errors.New("the entry was changed meanwhile")
)

// entrySubject is the subject under which a realm's permanent entries are listed. No sign-in can name it.
func entrySubject(realm string) string { return "\x00entries/" + realm }

// entryID returns the id of an entry, which is found by its name, and, if it is temporary, by the day of its end. Those
// that stay are in one partition, where they are listed; the others are spread.
func entryID(tenant uint32, realm, name string, b store.Bucket) store.ID {
	msg := binary.BigEndian.AppendUint32([]byte("afterlogin/entry-id/1\x00"), tenant)
	msg = append(append(append(msg, realm...), 0), name...)
	h := sha256.Sum256(msg)
	subject := ""
	if b == store.NoBucket {
		subject = entrySubject(realm)
	}
	return store.NewRootID(b, [14]byte(h[:14]), tenant, subject)
}

// endOfDay is the end of the day, in UTC, that t is in.
func endOfDay(t time.Time) time.Time { return t.UTC().Truncate(day).Add(day) }

func checkEntry(realm, name string, detail json.RawMessage) error {
	if realm == "" || len(realm) > 32 {
		return badRequest("realm: want 1 to 32 of a to z, 0 to 9 and -")
	}
	for i := range len(realm) {
		if c := realm[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return badRequest("realm: want 1 to 32 of a to z, 0 to 9 and -")
		}
	}
	if name == "" || len(name) > 256 || !utf8.ValidString(name) {
		return badRequest("name: want 1 to 256 bytes of UTF-8")
	}
	if len(detail) > maxDetail || !json.Valid(detail) {
		return badRequest("detail: want JSON of at most %d bytes", maxDetail)
	}
	return nil
}

// AddEntry makes an entry. It is durable when it returns nil. Errors: ErrEntryExists, ErrBadRequest, ErrUnavailable.
func (a *Authority) AddEntry(ctx context.Context, r EntryRequest) (*Entry, error) {
	if err := checkEntry(r.Realm, r.Name, r.Detail); err != nil {
		return nil, err
	}
	if !plain(r.Name, 256) {
		return nil, badRequest("name: want one without control characters")
	}
	now := a.now()
	rec := &store.Record{
		Kind: byte(KindEntry), Tenant: r.Tenant, Client: r.Name, Created: now.UnixMilli(), LastSeen: now.UnixMilli(),
	}
	if r.Until.IsZero() {
		rec.Subject = entrySubject(r.Realm)
	} else {
		if r.Until.Before(now) || r.Until.Sub(now) > maxTemporary {
			return nil, badRequest("until: want a time in the next 400 days")
		}
		rec.Absolute = endOfDay(r.Until).UnixMilli()
	}
	rec.ID = entryID(r.Tenant, r.Realm, r.Name, store.BucketOf(rec.Absolute))
	st := &state{generation: 1, renewed: now.UnixMilli(), policy: PolicyClient, name: r.Realm}
	e, err := a.putEntry(ctx, rec, 0, st, r.Detail, EventEntryCreated)
	if err == errConflict {
		return nil, ErrEntryExists
	}
	return e, err
}

// ChangeEntry replaces the detail of an entry that was just read, if nobody else has meanwhile. It is durable when it
// returns nil. Errors: ErrEntryChanged, ErrBadRequest, ErrUnavailable.
func (a *Authority) ChangeEntry(ctx context.Context, e *Entry, detail json.RawMessage) (*Entry, error) {
	return a.changeEntry(ctx, e, detail, EventEntryChanged)
}

// SaveEntry is ChangeEntry without an event: for what changes all the time and is no news, such as how far a job has come.
func (a *Authority) SaveEntry(ctx context.Context, e *Entry, detail json.RawMessage) (*Entry, error) {
	return a.changeEntry(ctx, e, detail, "")
}

func (a *Authority) changeEntry(ctx context.Context, e *Entry, detail json.RawMessage, event string) (*Entry, error) {
	if e == nil || e.record == nil {
		return nil, badRequest("the entry was not read from this authority")
	}
	if err := checkEntry(e.Realm, e.Name, detail); err != nil {
		return nil, err
	}
	st := &state{generation: 1, renewed: a.now().UnixMilli(), policy: PolicyClient, name: e.Realm}
	changed, err := a.putEntry(ctx, next(e.record), e.Version, st, detail, event)
	if err == errConflict {
		return nil, ErrEntryChanged
	}
	return changed, err
}

// putEntry writes the entry's record, with the event if there is to be one. That a temporary one was made or changed is
// no event: they come and go with sessions, which have events of their own.
func (a *Authority) putEntry(ctx context.Context, rec *store.Record, expect uint64, st *state, detail json.RawMessage, event string) (*Entry, error) {
	st.detail, st.op = string(detail), newOp()
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	ops := []store.Op{a.put(rec, expect, payload)}
	if rec.Absolute == 0 && event != "" {
		x := &exam{now: a.now(), standpoint: standpoint{rec, st, a.policy(PolicyClient)}}
		ops = append(ops, store.Emit(x.event(event, "", st.name+" "+rec.Client)))
	}
	if err := a.apply(ctx, rec.ID, a.wrote(rec.ID, st.op), ops...); err != nil {
		return nil, err
	}
	return newEntry(rec, st), nil
}

func newEntry(rec *store.Record, st *state) *Entry {
	e := &Entry{
		Tenant: rec.Tenant, Realm: st.name, Name: rec.Client, Detail: json.RawMessage(st.detail),
		Version: rec.Version, Created: fromMillis(rec.Created), record: rec,
	}
	if rec.Absolute != 0 {
		e.Until = fromMillis(rec.Absolute)
	}
	return e
}

// Entry returns the permanent entry of that name, read from the store and from no cache. Errors: ErrNoEntry,
// ErrUnavailable.
func (a *Authority) Entry(ctx context.Context, tenant uint32, realm, name string) (*Entry, error) {
	es, err := a.entries(ctx, tenant, realm, name, store.NoBucket)
	if err == nil && len(es) == 0 {
		return nil, ErrNoEntry
	}
	if err != nil {
		return nil, err
	}
	return es[0], nil
}

// TemporaryEntries returns the temporary entries of that name which end within the time, the first to end first: one for
// each day that such an entry was made to end on. It costs a look for each day, at most 400 days; none found is no error.
// They are read from the store and from no cache. Errors: ErrBadRequest, ErrUnavailable.
func (a *Authority) TemporaryEntries(ctx context.Context, tenant uint32, realm, name string, within time.Duration) ([]*Entry, error) {
	if within <= 0 || within > maxTemporary {
		return nil, badRequest("within: want a time of at most 400 days")
	}
	var buckets []store.Bucket
	for end := endOfDay(a.now()); !end.After(endOfDay(a.now().Add(within))); end = end.Add(day) {
		buckets = append(buckets, store.BucketOf(end.UnixMilli()))
	}
	return a.entries(ctx, tenant, realm, name, buckets...)
}

// entryLooks is how many records one read of the store asks for at most.
const entryLooks = 64

// entries reads the entries of a name that end in the buckets.
func (a *Authority) entries(ctx context.Context, tenant uint32, realm, name string, buckets ...store.Bucket) (out []*Entry, err error) {
	if checkEntry(realm, name, json.RawMessage("{}")) != nil {
		return nil, nil
	}
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	for len(buckets) > 0 {
		n := min(len(buckets), entryLooks)
		ids := make([]store.ID, n)
		for i, b := range buckets[:n] {
			ids[i] = entryID(tenant, realm, name, b)
		}
		buckets = buckets[n:]
		rs, err := a.store.Get(ctx, ids...)
		if err != nil {
			return nil, unavailable("read", err)
		}
		for _, r := range rs {
			if r == nil || r.Kind != byte(KindEntry) || r.Client != name || r.Tenant != tenant {
				continue
			}
			x, err := a.openEntry(r)
			if err != nil {
				return nil, err
			}
			if x != nil && x.Realm == realm {
				out = append(out, x)
			}
		}
	}
	return out, nil
}

// openEntry returns the entry of a record, nil if it is over.
func (a *Authority) openEntry(r *store.Record) (*Entry, error) {
	p, err := a.open(r, [2]store.Touch{})
	if err != nil {
		return nil, err
	}
	x := &exam{now: a.now(), standpoint: p}
	if why, _, _ := x.standing(); why != "" {
		return nil, nil
	}
	return newEntry(r, p.state), nil
}

// Entries yields the realm's permanent entries. It yields an error as the last thing, if at all: also one for entries
// whose records do not open.
func (a *Authority) Entries(ctx context.Context, tenant uint32, realm string) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		if err := checkEntry(realm, "x", json.RawMessage("{}")); err != nil {
			yield(nil, err)
			return
		}
		var broken error
		for r, err := range a.store.List(ctx, store.Query{Tenant: tenant, Subject: entrySubject(realm)}) {
			if err != nil {
				yield(nil, unavailable("list", err))
				return
			}
			e, err := a.openEntry(r)
			if err != nil { // logged; the others can be read
				broken = err
				continue
			}
			if e != nil && !yield(e, nil) {
				return
			}
		}
		if broken != nil {
			yield(nil, broken)
		}
	}
}
