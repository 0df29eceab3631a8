package redisstore

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

// Scan implements store.Bulk: a SCAN of each master. A scan cannot go on if a master was restarted or replaced, or slots
// were moved, in the middle of it.
func (s *Store) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		p := scanPlace{}
		if since != "" {
			var ok bool
			if p, ok = parseScanPlace(since); !ok {
				yield(store.Batch{}, store.ErrGap)
				return
			}
		}
		for p.done != allGroups {
			var batch store.Batch
			var err error
			if batch, p, err = s.scan(ctx, p); err != nil {
				yield(store.Batch{}, err)
				return
			}
			if len(batch.Records) > 0 && !yield(batch, nil) {
				return
			}
		}
		// The place behind everything is a place, too, if somebody asks again.
		if err := s.enter(ctx); err != nil {
			yield(store.Batch{}, err)
			return
		}
		s.exit()
	}
}

// A scanPlace is a place in a scan.
type scanPlace struct {
	done   uint64 // a bit for each group that is done
	now    uint64 // and for those of the server that is being scanned, none if it has not begun
	run    string // that server's run id
	cursor uint64 // its place
}

const allGroups uint64 = 1<<groups - 1

func (p scanPlace) String() store.Cursor {
	b := binary.BigEndian.AppendUint64(nil, p.done)
	b = binary.BigEndian.AppendUint64(b, p.now)
	b = binary.BigEndian.AppendUint64(b, p.cursor)
	return store.Cursor("s1" + base64.RawURLEncoding.EncodeToString(append(b, p.run...)))
}

// maxRunID is the greatest size of a server's run id; it is 40 in practice.
const maxRunID = 64

func parseScanPlace(c store.Cursor) (p scanPlace, ok bool) {
	text, ok := strings.CutPrefix(string(c), "s1")
	if !ok || len(text) > 2*(24+maxRunID) {
		return p, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 24 || len(b) > 24+maxRunID {
		return p, false
	}
	p = scanPlace{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), string(b[24:]), binary.BigEndian.Uint64(b[16:])}
	begun := p.now != 0
	return p, p.done&p.now == 0 && begun == (p.run != "") && (begun || p.cursor == 0) && p.String() == c
}

// scan reads on at p.
func (s *Store) scan(ctx context.Context, p scanPlace) (store.Batch, scanPlace, error) {
	fail := func(err error) (store.Batch, scanPlace, error) { return store.Batch{}, p, err }
	left := p.now
	if left == 0 {
		left = allGroups &^ p.done
	}
	if err := s.enter(ctx); err != nil {
		return fail(err)
	}
	n, err := s.topo.master(bits.TrailingZeros64(left))
	s.exit()
	if err != nil {
		return fail(err)
	}
	var mask uint64
	for _, g := range n.groups() {
		mask |= 1 << g
	}
	run, err := n.runID(ctx)
	if err != nil {
		return fail(err)
	}
	switch {
	case p.now == 0:
		if mask&p.done != 0 { // groups that are done have come to a server that is not
			return fail(store.ErrGap)
		}
		p.now, p.run, p.cursor = mask, run, 0
	case p.now != mask || p.run != run:
		return fail(store.ErrGap)
	}
	next, keys, err := s.scanKeys(ctx, n, strconv.FormatUint(p.cursor, 10))
	if err != nil {
		return fail(err)
	}
	var ids []store.ID
	for _, key := range keys {
		if g, ok := s.keys.groupOfKey(key); ok {
			if id, ok := s.keys.parseRecord(g, key); ok {
				ids = append(ids, id)
			}
		}
	}
	got, err := s.Get(ctx, ids...)
	if err != nil {
		return fail(err)
	}
	var batch store.Batch
	for _, r := range got {
		if r != nil {
			batch.Records = append(batch.Records, r)
		}
	}
	if p.cursor, err = strconv.ParseUint(next, 10, 64); err != nil {
		return fail(unavailable(n.addr, errShape))
	}
	if p.cursor == 0 {
		p = scanPlace{done: p.done | p.now}
	}
	batch.Next = p.String()
	return batch, p, nil
}

// runID returns what a server calls this life of its process.
func (n *node) runID(ctx context.Context) (string, error) {
	if err := n.s.enter(ctx); err != nil {
		return "", err
	}
	defer n.s.exit()
	info, err := n.info(ctx)
	if err != nil {
		return "", unavailable(n.addr, err)
	}
	if id := info["run_id"]; id != "" && len(id) <= maxRunID {
		return id, nil
	}
	return "", unavailable(n.addr, errShape)
}

// loadBatch bounds how many bytes one script loads.
const loadBatch = 1 << 20

// Load implements store.Bulk.
func (s *Store) Load(ctx context.Context, records []*store.Record) error {
	if len(records) > store.MaxLoad {
		return fmt.Errorf("%w: %d records, limit %d", store.ErrBadOps, len(records), store.MaxLoad)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	var of [groups][]*store.Record
	for _, r := range records {
		if r == nil || r.ID.IsZero() {
			return fmt.Errorf("%w: a record without an id", store.ErrBadOps)
		}
		g := groupOf(r.ID)
		of[g] = append(of[g], r)
	}
	// The groups' scripts are sent without waiting for one another: they share pipelines, and what confirms them.
	errs := make(chan error, groups)
	sent := 0
	for g := range of {
		if len(of[g]) > 0 {
			sent++
			go func() { errs <- s.loadGroup(ctx, g, of[g]) }()
		}
	}
	var first error
	for range sent {
		if err := <-errs; err != nil && (first == nil || errors.Is(err, store.ErrUnknown)) {
			first = err
		}
	}
	if first != nil {
		return fmt.Errorf("redisstore: load: %w", first)
	}
	return nil
}

func (s *Store) loadGroup(ctx context.Context, g int, records []*store.Record) error {
	ops := make([]store.Op, len(records))
	for i, r := range records {
		ops[i] = store.Op{Kind: store.OpPut, Record: r, ID: r.ID}
	}
	if err := s.indexElsewhere(ctx, ops); err != nil {
		return err
	}
	for len(records) > 0 {
		c := &change{keys: []string{s.keys.loaded(g)}}
		size := 0
		for len(records) > 0 && size < loadBatch {
			r := records[0]
			records = records[1:]
			c.keys = append(c.keys, s.keys.record(r.ID))
			indexes := s.index(c, r)
			text := encode(r)
			c.args = append(c.args, text, strconv.FormatInt(expiry(r.ID.Bucket()), 10), strconv.Itoa(indexes))
			size += len(text) + 200
		}
		if _, err := s.write(ctx, g, loadScript, c.keys, c.args); err != nil {
			return err
		}
	}
	return nil
}
