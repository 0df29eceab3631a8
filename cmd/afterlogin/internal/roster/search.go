package roster

import (
	"bytes"
	"container/heap"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// A Sort is an order of what is found.
type Sort string

// The orders. The - stands for "the latest first".
const (
	NewestFirst  Sort = "-created"
	OldestFirst  Sort = "created"
	LastUsed     Sort = "-last_seen"
	LongUnused   Sort = "last_seen"
	EndingFirst  Sort = "expires"
	EndingLast   Sort = "-expires"
	ByStore      Sort = "store" // of an answer that did not come from the index: by the hour they end in
	unsorted          = 0xFF
	MaxLimit          = 1000
	DefaultLimit      = 50
)

// sorts are the orders that may be asked for; their places stand in cursors.
var sorts = []Sort{NewestFirst, OldestFirst, LastUsed, LongUnused, EndingFirst, EndingLast}

// Sorts returns the orders that a search takes.
func Sorts() []Sort { return slices.Clone(sorts) }

// Errors of a search.
var (
	// ErrCursor is returned for a cursor that is not of this search, or whose index has gone meanwhile: begin anew.
	ErrCursor = errors.New("not a cursor of this search")
	// ErrRequest is returned for a limit or an order that there is not.
	ErrRequest = errors.New("bad search")
)

// A Request is one search.
type Request struct {
	Query  *query.Query
	Limit  int  // 1 to MaxLimit; 0: DefaultLimit
	Sort   Sort // empty: NewestFirst
	Cursor string
}

// How exact a total is.
const (
	Exact   = "exact"    // as of Progress.AsOf
	AtLeast = "at_least" // there may be more
	About   = "about"    // it hangs on last uses, which are as of Progress.UsesAsOf, on what is over and cleaned away, or on changes that were missed
)

// A Page is what was found. Every session in it was read from the store for this answer, and is meant by the query. It may
// hold fewer than the limit, or none, and still not be the last: Next is empty at the end.
type Page struct {
	Sessions []*afterlogin.Session
	Next     string
	Total    int    // of the whole search, not of the page
	TotalIs  string // Exact, AtLeast, About
	Sort     Sort
	Progress Progress
	// Direct says that the answer came from the store alone, and is complete as of now: a search for one subject.
	Direct bool
}

const (
	maxReads    = 2000 // of the store, for one page
	maxSubject  = 2000 // sessions of one subject that are sorted in memory
	maxPages    = 6    // of the store's list, for one page without an index
	storePage   = 1000
	readAtLeast = 16
)

// Search returns a page of what the query means. Errors: ErrRequest, ErrCursor, afterlogin.ErrUnavailable.
func (r *Roster) Search(ctx context.Context, q Request) (*Page, error) {
	if q.Query == nil {
		q.Query = &query.Query{}
	}
	if q.Limit == 0 {
		q.Limit = DefaultLimit
	}
	if q.Sort == "" {
		q.Sort = NewestFirst
	}
	order := slices.Index(sorts, q.Sort)
	if order < 0 || q.Limit < 0 || q.Limit > MaxLimit {
		return nil, ErrRequest
	}
	r.need()
	c, err := parseCursor(&q, order)
	if err != nil {
		return nil, err
	}
	if c.store {
		return r.throughStore(ctx, &q, &c)
	}
	if subject, ok := q.Query.Subject(); ok {
		if p, err := r.ofSubject(ctx, &q, subject, order, &c); err != nil || p != nil {
			return p, err
		}
	}
	if r.Progress().State == Ready {
		return r.throughIndex(ctx, &q, order, &c)
	}
	if q.Cursor != "" {
		return nil, ErrCursor
	}
	return r.throughStore(ctx, &q, &c)
}

// place is a place in an order.
type place struct {
	key int64
	id  rootID
}

// less reports whether a stands before b.
func (a *place) less(b *place, down bool) bool {
	if a.key != b.key {
		return a.key < b.key != down
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// keyOf is what a session is ordered by. What never ends, ends last.
func keyOf(s *afterlogin.Session, by Sort) int64 {
	switch strings.TrimPrefix(string(by), "-") {
	case "created":
		return s.Created.UnixMilli()
	case "last_seen":
		return s.LastSeen.UnixMilli()
	}
	return endKey(stampOf(s.Absolute))
}

func endKey(s stamp) int64 {
	if ms := s.millis(); ms != 0 {
		return ms
	}
	return 1<<63 - 1
}

func down(by Sort) bool { return by[0] == '-' }

// cursor is a place in an order, or in the store's list.
type cursor struct {
	at    place
	given bool
	store bool   // in the store's list
	list  string // the store's own cursor, of the page that at stands on
}

// sum names the query that a cursor is of, so that it is not taken for a place in another list.
func sum(q *query.Query) [4]byte {
	h := fnv.New32a()
	h.Write([]byte(q.String()))
	return [4]byte(h.Sum(nil))
}

func (c *cursor) String(q *Request, order int) string {
	s := sum(q.Query)
	b := []byte{byte(order)}
	if c.store {
		b[0] = unsorted
	} else {
		b = binary.BigEndian.AppendUint64(b, uint64(c.at.key))
	}
	b = append(append(b, s[:]...), c.at.id[:]...)
	text := base64.RawURLEncoding.EncodeToString(b)
	if c.store {
		text += "." + c.list
	}
	return text
}

func parseCursor(q *Request, order int) (c cursor, err error) {
	if q.Cursor == "" {
		return c, nil
	}
	head, list, hasList := strings.Cut(q.Cursor, ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil || len(q.Cursor) > 128 || len(b) == 0 {
		return c, ErrCursor
	}
	s := sum(q.Query)
	switch {
	case b[0] == unsorted && hasList && len(b) == 1+4+17 && bytes.Equal(b[1:5], s[:]):
		c.store, c.list = true, list
		copy(c.at.id[:], b[5:])
	case int(b[0]) == order && !hasList && len(b) == 1+8+4+17 && bytes.Equal(b[9:13], s[:]):
		c.at.key = int64(binary.BigEndian.Uint64(b[1:]))
		copy(c.at.id[:], b[13:])
	default:
		return c, ErrCursor
	}
	c.given = true
	return c, nil
}

// nearest keeps the n places that stand first. It is a heap with the last of them on top.
type nearest struct {
	places []place
	down   bool
	n      int
}

func (h *nearest) Len() int           { return len(h.places) }
func (h *nearest) Less(i, j int) bool { return h.places[j].less(&h.places[i], h.down) }
func (h *nearest) Swap(i, j int)      { h.places[i], h.places[j] = h.places[j], h.places[i] }
func (h *nearest) Push(x any)         { h.places = append(h.places, x.(place)) }
func (h *nearest) Pop() any {
	last := h.places[len(h.places)-1]
	h.places = h.places[:len(h.places)-1]
	return last
}

func (h *nearest) offer(p place) {
	switch {
	case len(h.places) < h.n:
		heap.Push(h, p)
	case p.less(&h.places[0], h.down):
		h.places[0] = p
		heap.Fix(h, 0)
	}
}

func (h *nearest) sorted() []place {
	slices.SortFunc(h.places, func(a, b place) int {
		switch {
		case a.less(&b, h.down):
			return -1
		case b.less(&a, h.down):
			return 1
		}
		return 0
	})
	return h.places
}

// found is what one look through all rows gives.
type found struct {
	places       []place
	handles      []afterlogin.SessionID
	sure, unsure int
	progress     Progress
}

// look goes through all rows once: the first n candidates behind after, and how many there are in all.
func (r *Roster) look(ctx context.Context, q *Request, after *cursor, n int, now time.Time) (*found, error) {
	select {
	case r.passes <- struct{}{}:
		defer func() { <-r.passes }()
	case <-ctx.Done():
		return nil, errors.Join(afterlogin.ErrUnavailable, ctx.Err())
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	f := &found{progress: r.progress()}
	if r.state != Ready {
		return f, nil
	}
	h := nearest{down: down(q.Sort), n: n, places: make([]place, 0, n)}
	judges := r.table.compile(q.Query, now)
	by := strings.TrimPrefix(string(q.Sort), "-")
	left := r.table.rows
next:
	for c := 0; c < len(r.table.chunks) && left > 0; c++ {
		chunk := r.table.chunks[c]
	rows:
		for i := range chunk {
			row := &chunk[i]
			if row.flags&taken == 0 {
				continue
			}
			left--
			v := yes
			for _, j := range judges {
				switch j(row) {
				case no:
					continue rows
				case maybe:
					v = maybe
				}
			}
			if v == yes {
				f.sure++
			} else {
				f.unsure++
			}
			p := place{id: row.id}
			switch by {
			case "created":
				p.key = row.created.millis()
			case "last_seen":
				p.key = row.seen.millis()
			default:
				p.key = endKey(row.absolute)
			}
			if !after.given || after.at.less(&p, h.down) {
				h.offer(p)
			}
		}
		if ctx.Err() != nil {
			break next
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(afterlogin.ErrUnavailable, err)
	}
	f.places = h.sorted()
	for i := range f.places {
		p := &f.places[i]
		kind := afterlogin.KindSession
		if at := r.table.find(&p.id); at != noRow {
			kind = afterlogin.Kind(r.table.at(at).kind)
		}
		f.handles = append(f.handles, handle(kind, &p.id))
	}
	return f, nil
}

// throughIndex takes candidates from the index, reads each from the store and judges it.
func (r *Roster) throughIndex(ctx context.Context, q *Request, order int, c *cursor) (*Page, error) {
	p := &Page{Sort: q.Sort}
	reads := 0
	for first := true; ; first = false {
		now := r.now()
		want := q.Limit + readAtLeast
		if !first { // many candidates are none: another pass over the rows costs more than a longer list
			want = maxReads - reads
		}
		f, err := r.look(ctx, q, c, want, now)
		if err != nil {
			return nil, err
		}
		if f.progress.State != Ready { // it has gone meanwhile
			if q.Cursor != "" || !first {
				return nil, ErrCursor
			}
			return r.throughStore(ctx, q, &cursor{})
		}
		if first {
			p.Progress, p.Total, p.TotalIs = f.progress, f.sure, totalIs(q.Query, f)
		}
		for from := 0; from < len(f.handles); {
			to := min(from+q.Limit-len(p.Sessions)+readAtLeast, len(f.handles))
			got, err := r.sessions(ctx, f.handles[from:to])
			if err != nil {
				return nil, err
			}
			reads += len(got)
			for i := range got {
				if len(p.Sessions) == q.Limit {
					p.Next = c.String(q, order)
					return p, nil
				}
				c.at, c.given = f.places[from+i], true
				switch s := got[i].session; {
				case s == nil || !q.Query.Match(s, now):
					r.wrong(f.handles[from+i]) // or on the way to be right
				default:
					p.Sessions = append(p.Sessions, s)
				}
			}
			from = to
		}
		switch {
		case len(f.handles) < want:
			return p, nil
		case reads >= maxReads || len(p.Sessions) == q.Limit:
			p.Next = c.String(q, order)
			return p, nil
		}
	}
}

// wrong has a row looked up again that is not what the index thought.
func (r *Roster) wrong(id afterlogin.SessionID) {
	if root, ok := parseID(id); ok {
		r.dirty.add(root, kindOf(id))
	}
}

func totalIs(q *query.Query, f *found) string {
	if f.progress.Missed { // rows may be there that are none any more
		return About
	}
	if f.unsure > 0 {
		return AtLeast
	}
	if q.Over() {
		return About
	}
	for i := range q.Terms() {
		if q.Terms()[i].Field == query.LastSeen {
			return About
		}
	}
	return Exact
}

// ofSubject lists one subject's sessions from the store. It returns nil if there are too many to sort.
func (r *Roster) ofSubject(ctx context.Context, q *Request, subject string, order int, c *cursor) (*Page, error) {
	now := r.now()
	var all []*afterlogin.Session
	looked := 0
	for s, err := range r.authority.Sessions(ctx, afterlogin.Query{Subject: subject, Ended: q.Query.Over()}) {
		if err != nil {
			return nil, err
		}
		if looked++; looked > maxSubject {
			return nil, nil
		}
		if q.Query.Match(s, now) {
			all = append(all, s)
		}
	}
	p := &Page{Sort: q.Sort, Total: len(all), TotalIs: Exact, Direct: true, Progress: r.Progress()}
	p.Progress.AsOf, p.Progress.UsesAsOf = now, now
	h := nearest{down: down(q.Sort), n: q.Limit + 1}
	byID := make(map[rootID]*afterlogin.Session, len(all))
	for _, s := range all {
		at := place{key: keyOf(s, q.Sort)}
		at.id, _ = parseID(s.ID)
		byID[at.id] = s
		if !c.given || c.at.less(&at, h.down) {
			h.offer(at)
		}
	}
	for i, at := range h.sorted() {
		if i == q.Limit {
			p.Next = c.String(q, order)
			break
		}
		c.at, c.given = at, true
		p.Sessions = append(p.Sessions, byID[at.id])
	}
	return p, nil
}

// throughStore looks through a bounded part of the store.
func (r *Roster) throughStore(ctx context.Context, q *Request, c *cursor) (*Page, error) {
	p := &Page{Sort: ByStore, TotalIs: AtLeast, Progress: r.Progress()}
	now := r.now()
	list := afterlogin.Query{Ended: q.Query.Over(), After: c.list, Limit: storePage}
	list.Subject, _ = q.Query.Subject()
	skip := c.given
	for range maxPages {
		page, err := r.authority.Page(ctx, list)
		switch {
		case errors.Is(err, afterlogin.ErrBadCursor):
			return nil, ErrCursor
		case err != nil:
			return nil, err
		}
		for _, s := range page.Sessions {
			id, ok := parseID(s.ID)
			if !ok || skip && bytes.Compare(id[:], c.at.id[:]) <= 0 || !q.Query.Match(s, now) {
				continue
			}
			if len(p.Sessions) == q.Limit {
				p.Next = c.String(q, 0)
				p.Total = max(p.Total, len(p.Sessions)+1)
				return p, nil
			}
			p.Sessions = append(p.Sessions, s)
			p.Total = len(p.Sessions)
			*c = cursor{at: place{id: id}, given: true, store: true, list: list.After}
		}
		skip = false
		if page.Next == "" {
			if q.Cursor == "" {
				p.TotalIs = Exact
			}
			return p, nil
		}
		list.After = page.Next
		*c = cursor{given: true, store: true, list: list.After} // all of the next page
	}
	p.Next = c.String(q, 0)
	return p, nil
}
