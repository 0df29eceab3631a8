package transfer

import (
	"bufio"
	"context"
	"io"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// A Backup writes all records of a store into a file, in the format of format.go. It may run while others use the store:
// what is there for the whole time is in it, each record in one of its versions. Records that have expired are left out.
type Backup struct {
	From   store.Bulk
	Keys   []byte // sealed, as the key file has them
	Header Header
	// Apart reports that a record does not belong into the backup. Nil: all do.
	Apart  func(*store.Record) bool
	Report func(Progress)

	worker
}

// Write writes the backup.
func (k *Backup) Write(ctx context.Context, to io.Writer) (Trailer, error) {
	buffered := bufio.NewWriterSize(to, 64<<10)
	w := newWriter(buffered)
	if err := w.begin(); err != nil {
		return Trailer{}, err
	}
	k.Header.Created = k.time().UTC()
	if err := w.json(frameHeader, &k.Header); err != nil {
		return Trailer{}, err
	}
	if err := w.frame(frameKeys, func(b []byte) []byte { return append(b, k.Keys...) }); err != nil {
		return Trailer{}, err
	}
	t := Trailer{Kinds: make(map[string]int64)}
	p := Progress{Step: "writing", Begun: k.time()}
	err := k.scan(ctx, k.From, "", func(b store.Batch) error {
		now := k.time()
		for _, r := range b.Records {
			p.Done++
			switch {
			case k.Apart != nil && k.Apart(r):
				continue
			case expired(r, now):
				t.Expired++
				continue
			}
			t.Records++
			t.Kinds[KindName(r)]++
			if err := w.frame(frameRecord, func(b []byte) []byte { return store.AppendRecord(b, r) }); err != nil {
				return err
			}
		}
		p.Fresh = p.Done
		if k.Report != nil {
			k.Report(p)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	if err := w.json(frameTrailer, &t); err != nil {
		return t, err
	}
	if err := w.end(); err != nil {
		return t, err
	}
	return t, buffered.Flush()
}

// Letters of records that are no credentials; afterlogin.Kind has the others.
const (
	kindData    = 'd'
	kindSubject = 'u'
	kindOnce    = 'x' // says of something that it was used; a child whose root has no record
)

// KindName says what a record is of.
func KindName(r *store.Record) string {
	switch r.Kind {
	case kindData:
		return "data"
	case kindSubject:
		return "subject"
	case kindOnce:
		return "used_once"
	}
	return afterlogin.Kind(r.Kind).String()
}
