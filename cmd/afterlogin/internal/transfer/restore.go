package transfer

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// A Keep says which credentials of a backup live on.
type Keep int

// What lives on.
const (
	// KeepNothing ends every session, grant, key and token of the backup: what was ended or renewed after the backup must
	// not come back. Registered clients stay.
	KeepNothing Keep = iota
	KeepKeys         // API keys
	KeepSessions
)

// A Restoration puts the records of a backup into a store.
type Restoration struct {
	In       io.ReadSeeker
	Verified Verified // what Verify found In to be
	To       store.Bulk
	// Merge is to restore into a store that holds records already; those that are there in the same version or a later
	// one stay. It is also how a restoration goes on that was interrupted.
	Merge bool
	Keep  Keep
	// Keys puts the keys into the destination. It is called before the first record is written, and not if the destination is
	// refused. Nil: they are there.
	Keys func(context.Context) error
	// Apart reports that a record of the destination is none of the records that are restored. Nil: none is.
	Apart  func(*store.Record) bool
	Report func(Progress)

	worker
}

// A Restored says what was done.
type Restored struct {
	Records int64 // put into the store
	Expired int64 // left out, since they have expired by now
	Ended   int64 // of the records, how many were live and were ended
	Newer   int64 // of the records, how many were there in a later version, and stayed
}

// A Verified is what a backup is found to be.
type Verified struct {
	Header  Header
	Keys    []byte // sealed
	Trailer Trailer
	whole   [sha256.Size]byte
}

// Verify reads the whole backup. The error is ErrBadBackup for a file that is not whole or was changed, in which open,
// if it is not nil, does not open a record.
func Verify(in io.ReadSeeker, open func(*store.Record) error, report func(Progress)) (v Verified, err error) {
	r, err := rewind(in)
	if err != nil {
		return v, err
	}
	p := Progress{Step: "verifying", Begun: time.Now()}
	v.Trailer, err = r.records(func(rec *store.Record) error {
		if p.Done++; report != nil && p.Done%1000 == 0 {
			p.Fresh = p.Done
			report(p)
		}
		if open == nil || isNote(rec) {
			return nil
		}
		if err := open(rec); err != nil {
			return bad("record %v was changed: %w", rec.ID, err)
		}
		return nil
	})
	v.Header, v.Keys, v.whole = r.header, r.keys, r.whole
	return v, err
}

func rewind(in io.ReadSeeker) (*reader, error) {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return newReader(bufio.NewReaderSize(in, 64<<10))
}

// Keys returns the sealed keys of a backup without reading its records.
func Keys(in io.ReadSeeker) ([]byte, error) {
	r, err := rewind(in)
	if err != nil {
		return nil, err
	}
	return r.keys, nil
}

// Run restores the backup.
func (s *Restoration) Run(ctx context.Context) (out Restored, err error) {
	if !s.Merge {
		empty, err := s.empty(ctx, s.To, s.Apart)
		if err != nil {
			return out, err
		}
		if !empty {
			return out, ErrNotEmpty
		}
	}
	if err := placed(ctx, s.Keys); err != nil {
		return out, err
	}
	p := Progress{Step: "restoring", Total: s.Verified.Trailer.Records, Begun: s.time()}
	from := func(ctx context.Context, yield func(store.Batch) error) error { return s.feed(yield) }
	err = each(ctx, from, s.restore, func(b store.Batch, n Restored) error {
		out.Records += n.Records
		out.Expired += n.Expired
		out.Ended += n.Ended
		out.Newer += n.Newer
		p.Done += int64(len(b.Records))
		p.Fresh = p.Done
		if s.Report != nil {
			s.Report(p)
		}
		return nil
	})
	return out, err
}

// A batch of the backup ends after so many records, or bytes of payload.
const (
	feedRecords = 500
	feedBytes   = 1 << 20
)

// feed yields the records of the backup. It reads the file anew, and fails if that is not the one that was verified.
func (s *Restoration) feed(yield func(store.Batch) error) error {
	r, err := rewind(s.In)
	if err != nil {
		return err
	}
	var list []*store.Record
	size := 0
	flush := func() error {
		if len(list) == 0 {
			return nil
		}
		b := store.Batch{Records: list}
		list, size = nil, 0
		return yield(b)
	}
	_, err = r.records(func(rec *store.Record) error {
		list, size = append(list, rec), size+len(rec.Payload)
		if len(list) < feedRecords && size < feedBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	if r.whole != s.Verified.whole {
		return bad("it was changed while it was read")
	}
	return flush()
}

// restore loads a batch, and reads it back.
func (s *Restoration) restore(ctx context.Context, all []*store.Record) (n Restored, err error) {
	now := s.time()
	var list []*store.Record
	ended := make(map[store.ID]bool)
	for _, r := range all {
		if expired(r, now) {
			n.Expired++
			continue
		}
		if s.ends(r) {
			ended[r.ID] = true
			r.Marked, r.Reason, r.Version = now.UnixMilli(), string(afterlogin.ReasonRestored), r.Version+1
			n.Ended++
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return n, nil
	}
	if err := s.load(ctx, s.To, list); err != nil {
		return n, err
	}
	n.Records = int64(len(list))
	got, err := s.get(ctx, s.To, list)
	if err != nil {
		return n, err
	}
	now = s.time()
	for i, r := range list {
		what := difference(r, got[i])
		if what == "mark" && got[i].Reason == r.Reason { // by a restoration that was interrupted
			what = ""
		}
		switch {
		case what == "" || expired(r, now):
		// One that was changed there once since the backup has the version that the mark would have had.
		case s.Merge && (what == newer || ended[r.ID] && got[i] != nil && got[i].Version == r.Version):
			n.Newer++
		default:
			return n, fmt.Errorf("%w: %v: %s", ErrDifferent, r.ID, what)
		}
	}
	return n, nil
}

// ends reports whether a record is to be marked. The mark on a root ends what is below it; what is below a root that
// lives on is ended by marks of its own. Data, subjects and what was used once are no credentials.
func (s *Restoration) ends(r *store.Record) bool {
	if r.Marked != 0 || s.Keep == KeepSessions || r.ID.IsSubject() {
		return false
	}
	switch {
	case r.ID.IsChild():
		return r.Kind != kindData && r.Kind != kindOnce
	case afterlogin.Kind(r.Kind) == afterlogin.KindClient, afterlogin.Kind(r.Kind) == afterlogin.KindEntry:
		return false
	case afterlogin.Kind(r.Kind) == afterlogin.KindAPIKey:
		return s.Keep != KeepKeys
	}
	return true
}
