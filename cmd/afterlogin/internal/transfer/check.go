package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// A Check reads every record of a store and looks whether it is in order: its columns, its seal, the root that it lives
// under, and whether lists find it. It changes nothing.
type Check struct {
	Store store.Bulk
	// Open reports whether a record is one that the installation has sealed. Nil: that is not checked.
	Open   func(*store.Record) error
	Report func(Progress)

	worker
}

// A Checked is what was found.
type Checked struct {
	Records  int64           `json:"records"`
	Kinds    map[string]Kind `json:"kinds"`
	Sealed   bool            `json:"seals_checked"`
	Problems int64           `json:"problems"`
	// Examples are the first of the problems.
	Examples []Difference `json:"examples,omitempty"`
}

// A Kind counts the records of one kind.
type Kind struct {
	Live    int64 `json:"live"`
	Ended   int64 `json:"ended"` // marked
	Expired int64 `json:"expired"`
}

// found is what was found in one batch.
type found struct {
	kinds    map[string]Kind
	problems []Difference
}

// Run checks the store. The error is of reading it; what is wrong with records stands in the result.
func (c *Check) Run(ctx context.Context) (Checked, error) {
	out := Checked{Kinds: make(map[string]Kind), Sealed: c.Open != nil}
	p := Progress{Step: "checking", Begun: c.time()}
	x := &check{Check: c, begun: p.Begun.UnixMilli(), tenants: make(map[uint32]bool), listed: newFilter(), ofSubject: newFilter()}
	from := func(ctx context.Context, yield func(store.Batch) error) error {
		return c.scan(ctx, c.Store, "", func(b store.Batch) error {
			for _, r := range b.Records {
				if err := x.listAll(ctx, r); err != nil {
					return err
				}
			}
			return yield(b)
		})
	}
	err := each(ctx, from, x.batch, func(b store.Batch, f found) error {
		out.Records += int64(len(b.Records))
		for name, k := range f.kinds {
			sum := out.Kinds[name]
			out.Kinds[name] = Kind{sum.Live + k.Live, sum.Ended + k.Ended, sum.Expired + k.Expired}
		}
		out.Problems += int64(len(f.problems))
		out.Examples = append(out.Examples, f.problems[:min(len(f.problems), maxExamples-len(out.Examples))]...)
		p.Done = out.Records
		p.Fresh = p.Done
		if c.Report != nil {
			c.Report(p)
		}
		return nil
	})
	return out, err
}

// check is one Run.
type check struct {
	*Check
	begun   int64           // milliseconds
	tenants map[uint32]bool // whose roots were listed; of the scan's goroutine
	listed  *filter         // every root that these lists yield
	// ofSubject is every root that the lists of subjects have yielded so far.
	ofSubject *filter
}

// listAll lists all roots of the record's tenant, once, before a batch with one of them is looked at.
func (x *check) listAll(ctx context.Context, r *store.Record) error {
	if !r.ID.IsRoot() || x.tenants[r.Tenant] {
		return nil
	}
	err := x.list(ctx, store.Query{Tenant: r.Tenant}, x.listed)
	if err != nil {
		return fmt.Errorf("list the roots of tenant %d: %w", r.Tenant, err)
	}
	x.tenants[r.Tenant] = true
	return nil
}

func (x *check) batch(ctx context.Context, all []*store.Record) (found, error) {
	f := found{kinds: make(map[string]Kind)}
	now := x.time()
	say := func(id store.ID, format string, args ...any) {
		f.problems = append(f.problems, Difference{ID: id.String(), What: fmt.Sprintf(format, args...)})
	}
	here := make(map[store.ID]*store.Record, len(all))
	var above []store.ID
	for _, r := range all {
		if IsKeys(r) {
			f.kinds["keys"] = Kind{Live: 1}
			continue
		}
		if isNote(r) {
			f.kinds["admin_key_note"] = Kind{Live: 1}
			continue
		}
		k := f.kinds[KindName(r)]
		over := expired(r, now)
		switch {
		case over:
			k.Expired++
		case r.Marked != 0:
			k.Ended++
		default:
			k.Live++
		}
		f.kinds[KindName(r)] = k
		for _, what := range insane(r) {
			say(r.ID, "%s", what)
		}
		if x.Open != nil {
			if err := x.Open(r); err != nil {
				say(r.ID, "%v", err)
			}
		}
		switch {
		case r.ID.IsRoot():
			here[r.ID] = r
		case rooted(r) && !over:
			above = append(above, r.ID.Root())
		}
	}
	if err := x.roots(ctx, all, above, here, say); err != nil {
		return f, err
	}
	return f, x.found(ctx, here, say)
}

// isNote reports whether a record says which server made the admin key (internal/server). It is not sealed, and holds no
// secret.
func isNote(r *store.Record) bool { return r.ID == noteID && r.Kind == 'n' }

var noteID = store.SubjectID(0, "\x00admin key")

// rooted reports whether there must be a root's record above the record.
func rooted(r *store.Record) bool { return r.ID.IsChild() && r.Kind != kindOnce }

// roots looks whether every child has its root.
func (x *check) roots(ctx context.Context, all []*store.Record, above []store.ID, here map[store.ID]*store.Record, say func(store.ID, string, ...any)) error {
	have := make(map[store.ID]*store.Record, len(above))
	above = slices.DeleteFunc(above, func(id store.ID) bool {
		have[id] = here[id]
		return here[id] != nil
	})
	slices.SortFunc(above, store.ID.Compare)
	above = slices.Compact(above)
	if len(above) > 0 {
		var rs []*store.Record
		err := x.try(ctx, func() (err error) {
			rs, err = x.Store.Get(ctx, above...)
			return err
		})
		if err != nil {
			return err
		}
		for _, r := range rs {
			if r != nil {
				have[r.ID] = r
			}
		}
	}
	now := x.time()
	for _, r := range all {
		if !rooted(r) || expired(r, now) {
			continue
		}
		switch root := have[r.ID.Root()]; {
		case root == nil:
			say(r.ID, "its root %v is missing", r.ID.Root())
		case root.Tenant != r.Tenant:
			say(r.ID, "it is of tenant %d, and its root of %d", r.Tenant, root.Tenant)
		}
	}
	return nil
}

// A finder says of many roots at once whether the lists of their subjects find them. A store that has it has an index of subjects
// that its server keeps beside the records by itself, and would take many times as long to list subject by subject.
type finder interface {
	Found(ctx context.Context, roots []*store.Record) ([]bool, error)
}

// found looks whether lists find every root: that of its subject, and that of its tenant. On a store in use, roots come
// while this runs, and go when they expire.
func (x *check) found(ctx context.Context, here map[store.ID]*store.Record, say func(store.ID, string, ...any)) error {
	now := x.time()
	var of []*store.Record // roots with a subject
	for id, r := range here {
		if expired(r, now) || r.Created >= x.begun {
			continue
		}
		if !x.listed.has(id) {
			say(id, "the list of all roots does not find it")
		}
		if r.Subject != "" {
			of = append(of, r)
		}
	}
	missing, err := x.missing(ctx, of)
	for _, r := range missing {
		if !expired(r, x.time()) {
			say(r.ID, "the list of its subject's roots does not find it")
		}
	}
	return err
}

// missing returns the roots that the lists of their subjects do not find.
func (x *check) missing(ctx context.Context, roots []*store.Record) (missing []*store.Record, err error) {
	f, ok := x.Store.(finder)
	if !ok {
		return x.unlisted(ctx, roots)
	}
	var found []bool
	err = x.try(ctx, func() (err error) {
		found, err = f.Found(ctx, roots)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, r := range roots {
		if !found[i] {
			missing = append(missing, r)
		}
	}
	if len(roots) == 0 {
		return nil, nil
	}
	// That it says so is one thing, and that a list does is another: one subject of each batch is listed.
	more, err := x.unlisted(ctx, roots[:1])
	if len(more) > 0 && found[0] {
		missing = append(missing, more...)
	}
	return missing, err
}

// unlisted is missing by the lists themselves.
func (x *check) unlisted(ctx context.Context, roots []*store.Record) (missing []*store.Record, err error) {
	for _, r := range roots {
		// The first root of a subject has all of its roots listed, so that this is done once for each subject.
		if !x.ofSubject.has(r.ID) {
			if err := x.list(ctx, store.Query{Tenant: r.Tenant, Subject: r.Subject}, x.ofSubject); err != nil {
				return nil, err
			}
		}
		if !x.ofSubject.has(r.ID) {
			missing = append(missing, r)
		}
	}
	return missing, nil
}

// list adds what a list yields to the filter.
func (x *check) list(ctx context.Context, q store.Query, into *filter) error {
	return x.try(ctx, func() error {
		for root, err := range x.Store.List(ctx, q) {
			if err != nil {
				return err
			}
			into.add(root.ID)
		}
		return nil
	})
}

// insane says what is wrong with a record's columns.
func insane(r *store.Record) (what []string) {
	wrong := func(is bool, text string) {
		if is {
			what = append(what, text)
		}
	}
	kind := afterlogin.Kind(r.Kind)
	wrong(r.Version == 0, "version 0")
	wrong(r.Marked < 0 || r.Created < 0 || r.Absolute < 0 || r.LastSeen < 0 || r.SeenAt < 0, "a time before 1970")
	wrong(r.Marked == 0 && r.Reason != "", "a reason without a mark")
	wrong(r.Marked != 0 && r.Version < 2, "a mark without a version of its own")
	switch {
	case r.ID.IsSubject():
		wrong(r.Kind != kindSubject, fmt.Sprintf("kind %q for a subject's record", r.Kind))
		wrong(r.ID != store.SubjectID(r.Tenant, r.Subject), "the record of another subject than it says")
	case r.ID.IsChild():
		wrong(r.Kind != kindData && r.Kind != kindOnce && kind.String() == "unknown", fmt.Sprintf("kind %q", r.Kind))
		wrong(r.Kind == kindData && r.ID != store.NewChildID(r.ID, r.ID.Root().Bucket(), [6]byte{}), "data that is not where its session looks for it")
	default:
		wrong(kind.String() == "unknown", fmt.Sprintf("kind %q", r.Kind))
	}
	wrong(!r.ID.IsSubject() && store.BucketOf(r.Absolute) > r.ID.Bucket(), "it is cleaned away before it expires")
	return what
}

// A filter remembers ids in a fixed amount of memory, and has very few that were not added (a Bloom filter).
type filter struct{ bits []atomic.Uint64 }

const filterBits = 1 << 28 // 32 MiB: one in a million is wrong at 10 million ids

func newFilter() *filter { return &filter{make([]atomic.Uint64, filterBits/64)} }

func (f *filter) add(id store.ID) {
	for _, at := range places(id) {
		f.bits[at/64].Or(1 << (at % 64))
	}
}

func (f *filter) has(id store.ID) bool {
	for _, at := range places(id) {
		if f.bits[at/64].Load()&(1<<(at%64)) == 0 {
			return false
		}
	}
	return true
}

// places are the bits of an id. Ids end with random bytes, which are as good as a hash.
func places(id store.ID) (at [8]uint64) {
	var b [32]byte
	raw := id.Append(b[:0])
	h, step := id.Hash(), binary.BigEndian.Uint64(raw[len(raw)-8:])|1
	for i := range at {
		at[i] = h % filterBits
		h += step
	}
	return at
}
