package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func (h *house) backup(from store.Bulk) []byte {
	h.t.Helper()
	var b bytes.Buffer
	k := &Backup{From: from, Keys: h.sealed(), Header: Header{Program: "test", Store: "embedded"}, Apart: IsKeys, worker: worker{now: h.clock.now}}
	if _, err := k.Write(h.t.Context(), &b); err != nil {
		h.t.Fatal(err)
	}
	return b.Bytes()
}

func (h *house) restore(backup []byte, to store.Bulk, keep Keep) Restored {
	h.t.Helper()
	in := bytes.NewReader(backup)
	v := must[Verified](h.t)(Verify(in, h.opener(), nil))
	r := &Restoration{In: in, Verified: v, To: to, Keep: keep, Apart: IsKeys, worker: worker{now: h.clock.now}}
	return must[Restored](h.t)(r.Run(h.t.Context()))
}

// After a restore everybody signs in again, and nothing that was ended or renewed after the backup comes back.
func TestRestore(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			from := open(t)
			h := newHouse(t, from)
			c := h.furnish()
			// A backup under load.
			ctx, stop := context.WithCancel(t.Context())
			var load sync.WaitGroup
			load.Go(func() {
				for ctx.Err() == nil {
					s, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "busy"})
					if err == nil {
						err = h.Revoke(t.Context(), s.Session.ID, afterlogin.ReasonSignedOut)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
			backup := h.backup(from)
			stop()
			load.Wait()
			for what, token := range c.live() {
				h.want(what+", beside the backup", token, "")
			}
			// Then life goes on.
			h.clock.pass(time.Minute)
			renewed := must[afterlogin.Issued](t)(h.Rotate(t.Context(), c.session.Token, anyKind))
			if err := h.Revoke(t.Context(), c.other.Session.ID, afterlogin.ReasonSignedOut); err != nil {
				t.Fatal(err)
			}
			after := h.signIn("late")

			to := open(t)
			n := h.restore(backup, to, KeepNothing)
			h.on(to)
			for what, token := range c.live() {
				h.want(what, token, afterlogin.ReasonRevoked)
			}
			_, err := h.Validate(t.Context(), c.other.Token, anyKind)
			var r *afterlogin.Refusal
			if !errors.As(err, &r) || r.Cause != afterlogin.ReasonRestored || !strings.Contains(r.Message(), "restored") {
				t.Errorf("a session of the backup: %v, want one that says that the server was restored", err)
			}
			h.want("a session that was renewed after the backup", renewed.Token, afterlogin.ReasonRevoked)
			h.want("a session that was begun after the backup", after.Token, afterlogin.ReasonUnknown)
			h.want("what was signed out before the backup", c.revoked.Token, afterlogin.ReasonRevoked)
			if _, err := h.Refresh(t.Context(), c.offline.Token, afterlogin.RefreshRequest{Client: "app"}); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
				t.Errorf("a refresh token of the backup: %v", err)
			}
			if fresh, err := h.FirstUse(t.Context(), "assertion", "1", h.clock.now().Add(59*time.Minute)); fresh || err != nil {
				t.Errorf("an assertion that was used is good again: %v %v", fresh, err)
			}
			// What is new, and who is registered.
			h.want("a new sign-in", h.signIn("mia").Token, "")
			client := must[*afterlogin.Registration](t)(h.Client(t.Context(), 0, "reports"))
			token := must[afterlogin.Issued](t)(h.IssueAccess(t.Context(), client.Session, afterlogin.AccessRequest{Client: "reports"}))
			h.want("a token of a registered client", token.Token, "")
			if n.Ended == 0 || n.Records <= n.Ended {
				t.Errorf("%+v", n)
			}
			found, err := (&Check{Store: to, Open: h.opener(), worker: worker{now: h.clock.now}}).Run(t.Context())
			if err != nil || found.Problems > 0 {
				t.Errorf("Check = %+v, %v", found, err)
			}
		})
	}
}

func TestRestoreKeeps(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	c := h.furnish()
	backup := h.backup(from)
	h.clock.pass(time.Minute)
	renewed := must[afterlogin.Issued](t)(h.Rotate(t.Context(), c.session.Token, anyKind))

	keys := memstore.New()
	h.restore(backup, keys, KeepKeys)
	h.on(keys)
	for what, token := range c.live() {
		want := afterlogin.ReasonRevoked
		if what == "an API key" {
			want = ""
		}
		h.want("with --keep-keys, "+what, token, want)
	}

	everything := memstore.New()
	if n := h.restore(backup, everything, KeepSessions); n.Ended != 0 {
		t.Errorf("with --keep-sessions %d were ended", n.Ended)
	}
	h.on(everything)
	for what, token := range c.live() {
		h.want("with --keep-sessions, "+what, token, "")
	}
	h.events = nil
	h.want("a token that is newer than the backup", renewed.Token, afterlogin.ReasonRolledBack)
	if !slices.Contains(h.events, afterlogin.EventRolledBack) {
		t.Errorf("no alarm: %v", h.events)
	}
	h.want("its session", c.session.Token, afterlogin.ReasonRevoked)
}

// A restoration that was interrupted goes on with Merge, and never touches what is newer.
func TestRestoreAgain(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	many(t, from, 3000)
	c := h.furnish()
	backup := h.backup(from)
	to := memstore.New()
	in := bytes.NewReader(backup)
	v := must[Verified](t)(Verify(in, nil, nil))
	r := &Restoration{In: in, Verified: v, To: to, worker: worker{now: h.clock.now}}
	ctx, cancel := context.WithCancel(t.Context())
	r.Report = func(Progress) { cancel() }
	if _, err := r.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	h.clock.pass(time.Minute)
	if _, err := r.Run(t.Context()); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("%v, want ErrNotEmpty", err)
	}
	r.Merge = true
	if _, err := r.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := len(all(t, to)), len(all(t, from)); got != want {
		t.Errorf("%d records, want %d", got, want)
	}
	h.on(to)
	h.want("a session of the backup", c.session.Token, afterlogin.ReasonRevoked)

	// Over a store that has gone on, it ends nothing that is newer than the backup.
	h.on(from)
	h.clock.pass(time.Hour)
	next := must[afterlogin.Issued](t)(h.Rotate(t.Context(), c.session.Token, anyKind))
	next = must[afterlogin.Issued](t)(h.StepUp(t.Context(), next.Token, afterlogin.Authentication{}, afterlogin.Client{}))
	r = &Restoration{In: in, Verified: v, To: from, Merge: true, worker: worker{now: h.clock.now}}
	n, err := r.Run(t.Context())
	if err != nil || n.Newer == 0 {
		t.Fatalf("%+v, %v", n, err)
	}
	h.on(from)
	h.want("a session that has gone on", next.Token, "")
}

// Whatever is changed in a backup, it is refused before anything is written.
func TestDamagedBackup(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	h.furnish()
	good := h.backup(from)
	if _, err := Verify(bytes.NewReader(good), h.opener(), nil); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		if _, err := Verify(bytes.NewReader(b), h.opener(), nil); !errors.Is(err, ErrBadBackup) {
			t.Errorf("%s: %v, want ErrBadBackup", what, err)
		}
	}
	for n := range len(good) {
		if n < 60 || n > len(good)-60 || n%499 == 0 {
			refused("cut off", good[:n])
			changed := bytes.Clone(good)
			changed[n] ^= 0x20
			refused("one bit", changed)
		}
	}
	refused("something behind it", append(bytes.Clone(good), 0))
	refused("twice", append(bytes.Clone(good), good...))
	refused("nothing", nil)
	refused("something else", []byte(strings.Repeat("PK\x03\x04", 1000)))
	layout := bytes.Clone(good)
	binary.BigEndian.PutUint32(layout[len(magic):], 2)
	if _, err := Verify(bytes.NewReader(layout), nil, nil); err == nil || !strings.Contains(err.Error(), "layout 2, and this program reads 1") {
		t.Errorf("another layout: %v", err)
	}
	// A length that promises more than there is costs nothing.
	long := append(bytes.Clone(good[:len(magic)+4]), frameHeader, 0xFF, 0xFF, 0xFF, 0xFF)
	refused("a long frame", long)

	// Who knows the format can make a file that is whole. What stands in it was still not sealed by the installation.
	forge := func(change func(*store.Record)) []byte {
		var b bytes.Buffer
		w := newWriter(&b)
		w.begin()
		w.json(frameHeader, &Header{})
		w.frame(frameKeys, func(b []byte) []byte { return append(b, h.sealed()...) })
		n := int64(0)
		for _, r := range all(t, from) {
			change(r)
			w.frame(frameRecord, func(b []byte) []byte { return store.AppendRecord(b, r) })
			n++
		}
		w.json(frameTrailer, &Trailer{Records: n})
		w.end()
		return b.Bytes()
	}
	if _, err := Verify(bytes.NewReader(forge(func(*store.Record) {})), h.opener(), nil); err != nil {
		t.Fatal(err)
	}
	refused("another subject", forge(func(r *store.Record) { r.Subject = "eve" }))
	refused("another payload", forge(func(r *store.Record) { r.Payload = []byte("x") }))
	refused("version 0", forge(func(r *store.Record) { r.Version = 0 }))

	if _, err := Opener(h.sealed(), bytes.Repeat([]byte{1}, keyring.KeySize)); !errors.Is(err, keyring.ErrWrongMaster) {
		t.Errorf("another master key: %v", err)
	}
	// The sealed keys are in it, and no key in clear.
	for _, p := range []keyring.Purpose{keyring.MAC, keyring.Sealing, keyring.Rotation, keyring.CSRF} {
		if bytes.Contains(good, h.ring.Active(p).Secret()) {
			t.Errorf("the backup holds a %s key in clear", p)
		}
	}
	if bytes.Contains(good, h.master) {
		t.Error("the backup holds the master key")
	}
	if got := must[[]byte](t)(Keys(bytes.NewReader(good))); !bytes.Equal(got, h.sealed()) && !json.Valid(got) {
		t.Error("the keys of the backup are not the sealed ones")
	}
}

// A file that changes between the two readings is refused.
func TestBackupChangesMeanwhile(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	many(t, from, 5)
	v := must[Verified](t)(Verify(bytes.NewReader(h.backup(from)), nil, nil))
	many(t, from, 6)
	r := &Restoration{In: bytes.NewReader(h.backup(from)), Verified: v, To: memstore.New()}
	if _, err := r.Run(t.Context()); !errors.Is(err, ErrBadBackup) {
		t.Errorf("%v, want ErrBadBackup", err)
	}
}

// FuzzVerify looks for files that are taken for backups and are none, and for such as cost more than they are long.
func FuzzVerify(f *testing.F) {
	s := memstore.New()
	id := store.NewRootID(store.NoBucket, [14]byte{1}, 0, "mia")
	if err := s.Load(f.Context(), []*store.Record{{ID: id, Kind: 's', Subject: "mia", Version: 1, Payload: []byte("x")}}); err != nil {
		f.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := (&Backup{From: s, Keys: []byte("{}")}).Write(f.Context(), &b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:40])
	f.Add([]byte(magic + "\x00\x00\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Verify(bytes.NewReader(b), nil, nil)
		if err != nil && !errors.Is(err, ErrBadBackup) {
			t.Errorf("%v is not ErrBadBackup", err)
		}
		if err == nil && (v.Trailer.Records < 0 || int(v.Trailer.Records) > len(b)) {
			t.Errorf("%d records in %d bytes", v.Trailer.Records, len(b))
		}
		// The frames behind a good beginning, with their checksums made right, so that more than the first is tried.
		r := &reader{r: bytes.NewReader(mend(b))}
		for range 1000 {
			if _, _, err := r.next(); err != nil {
				break
			}
		}
	})
}

// mend makes a frame of the bytes.
func mend(b []byte) []byte {
	frame := append([]byte{frameRecord}, binary.BigEndian.AppendUint32(nil, uint32(len(b)))...)
	frame = append(frame, b...)
	return binary.BigEndian.AppendUint32(frame, crc32.Checksum(frame, castagnoli))
}

// The note on which server made the admin key, which servers that share a store keep there, is no secret and is not sealed.
func TestRestoreANote(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	h.signIn("mia")
	note := &store.Record{ID: noteID, Kind: 'n', Version: 1, Payload: []byte("a claim")}
	if err := from.Apply(t.Context(), noteID, store.Put(note, 0)); err != nil {
		t.Fatal(err)
	}
	to := memstore.New()
	h.restore(h.backup(from), to, KeepNothing)
	if got := all(t, to)[noteID]; got == nil || string(got.Payload) != "a claim" {
		t.Errorf("the note is %v", got)
	}
}

// What is in the store of a restoration that merges, and was renewed there since the backup, stays as it is: also what was
// renewed once, whose version is that of the mark that it would have got.
func TestMergeKeepsWhatWasRenewed(t *testing.T) {
	s := memstore.New()
	h := newHouse(t, s)
	once, twice, never := h.signIn("mia"), h.signIn("mia"), h.signIn("mia")
	backup := h.backup(s)
	h.clock.pass(time.Hour)
	once = must[afterlogin.Issued](t)(h.Rotate(t.Context(), once.Token, anyKind))
	twice = must[afterlogin.Issued](t)(h.Rotate(t.Context(), twice.Token, anyKind))
	h.clock.pass(time.Hour)
	twice = must[afterlogin.Issued](t)(h.Rotate(t.Context(), twice.Token, anyKind))
	in := bytes.NewReader(backup)
	r := &Restoration{In: in, Verified: must[Verified](t)(Verify(in, h.opener(), nil)), To: s, Merge: true, Apart: IsKeys, worker: worker{now: h.clock.now}}
	n, err := r.Run(t.Context())
	if err != nil || n.Newer != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	h.on(s)
	h.want("what was renewed once", once.Token, "")
	h.want("what was renewed twice", twice.Token, "")
	h.want("what was not", never.Token, afterlogin.ReasonRevoked)
}
