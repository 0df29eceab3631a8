package seal_test

import (
	"bytes"
	"testing"

	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

func record() *store.Record {
	return &store.Record{ID: store.NewRootID(500_000, [14]byte{1}, 3, "mia"), Kind: 's', Tenant: 3, Subject: "mia", Client: "app", Created: 5, Absolute: 9, Version: 4}
}

func TestASealHoldsForOneRecordAndVersion(t *testing.T) {
	s := seal.New(keyring.New())
	r := record()
	s.Seal(r, []byte("hello"))
	if got, err := s.Open(r); err != nil || string(got) != "hello" {
		t.Fatalf("Open = %q, %v", got, err)
	}
	touched := r.Clone()
	touched.LastSeen, touched.SeenGen, touched.SeenAt = 7, 8, 9
	if _, err := s.Open(touched); err != nil {
		t.Errorf("a touch breaks the seal: %v", err)
	}
	marked := r.Clone()
	marked.Marked, marked.Reason, marked.Version = 6, "revoked", r.Version+1
	if _, err := s.Open(marked); err != nil {
		t.Errorf("a mark breaks the seal: %v", err)
	}
	for name, change := range map[string]func(*store.Record){
		"id":                    func(r *store.Record) { r.ID = store.NewRootID(500_000, [14]byte{0, 0, 2}, 3, "mia") },
		"bucket":                func(r *store.Record) { r.ID = store.NewRootID(500_001, [14]byte{1}, 3, "mia") },
		"kind":                  func(r *store.Record) { r.Kind = 'k' },
		"tenant":                func(r *store.Record) { r.Tenant++ },
		"subject":               func(r *store.Record) { r.Subject = "eve" },
		"client":                func(r *store.Record) { r.Client = "" },
		"subject and client":    func(r *store.Record) { r.Subject, r.Client = "mi", "aapp" },
		"created":               func(r *store.Record) { r.Created++ },
		"absolute":              func(r *store.Record) { r.Absolute++ },
		"version":               func(r *store.Record) { r.Version++ },
		"version, without mark": func(r *store.Record) { r.Version-- },
		"version two on":        func(r *store.Record) { r.Version += 2; r.Marked = 1 },
		"key id":                func(r *store.Record) { r.Payload[1]++ },
		"layout":                func(r *store.Record) { r.Payload[0]++ },
		"nonce":                 func(r *store.Record) { r.Payload[12] ^= 1 },
		"text":                  func(r *store.Record) { r.Payload[len(r.Payload)-1] ^= 1 },
		"length":                func(r *store.Record) { r.Payload = r.Payload[:len(r.Payload)-1] },
		"nothing":               func(r *store.Record) { r.Payload = nil },
	} {
		c := r.Clone()
		change(c)
		if _, err := s.Open(c); err != seal.ErrBroken {
			t.Errorf("%s changed: %v, want ErrBroken", name, err)
		}
	}
	if _, err := seal.New(keyring.New()).Open(r); err != seal.ErrBroken {
		t.Errorf("another installation: %v", err)
	}
}

func TestSealsDiffer(t *testing.T) {
	s := seal.New(keyring.New())
	a, b := record(), record()
	s.Seal(a, []byte("hello"))
	s.Seal(b, []byte("hello"))
	if bytes.Equal(a.Payload, b.Payload) {
		t.Error("two seals of the same are the same")
	}
	if bytes.Contains(a.Payload, []byte("hello")) {
		t.Error("the text shows")
	}
}

func FuzzOpen(f *testing.F) {
	s := seal.New(keyring.New())
	r := record()
	s.Seal(r, []byte("hello"))
	f.Add(r.Payload)
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := record()
		c.Payload = b
		if _, err := s.Open(c); err == nil && !bytes.Equal(b, r.Payload) {
			t.Fatal("a payload that was not sealed opens")
		}
	})
}
