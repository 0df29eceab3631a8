package afterlogin_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A line is a ring's way to the store, which can be cut.
type line struct {
	store.Store
	cut atomic.Bool
}

func (l *line) Notify(func(store.ID)) func() { return func() {} }

func (l *line) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if l.cut.Load() {
		return nil, errors.New("connection refused")
	}
	return l.Store.Get(ctx, ids...)
}

// What another node made with a key that this one cannot read is neither good nor bad: a 503, not a 400, a 401 or a 403.
func TestMadeWithAKeyNotKnownHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		l := &line{Store: st}
		node := func(of store.Store) (*afterlogin.Authority, *keyring.Ring) {
			r, err := keyring.OpenShared(t.Context(), of, bytes.Repeat([]byte{3}, keyring.KeySize), keyring.SharedOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close() })
			a, err := afterlogin.New(afterlogin.Config{Store: st, Keys: r})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { a.Close() })
			return a, r
		}
		a, keys := node(st)
		b, _ := node(l)
		l.cut.Store(true)
		for _, p := range []keyring.Purpose{keyring.MAC, keyring.Sealing, keyring.CSRF} {
			if _, err := keys.Rotate(p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(keyring.Lead + time.Second)
		q := afterlogin.Query{Subject: "mia", Limit: 1}
		m, err := a.Begin(t.Context(), 0, "mia")
		if err != nil {
			t.Fatal(err)
		}
		in, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Mark: m})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
			t.Fatal(err)
		}
		p, err := a.Page(t.Context(), q)
		if err != nil || p.Next == "" {
			t.Fatal(p, err)
		}
		q.After = p.Next
		mark, csrf := a.EncodeMark(m), a.CSRFToken(in.Session)
		tries := map[string]func() error{
			"Validate": func() error {
				_, err := b.Validate(t.Context(), in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
				return err
			},
			"Explain":    func() error { _, err := b.Explain(t.Context(), in.Token, afterlogin.Client{}); return err },
			"DecodeMark": func() error { _, err := b.DecodeMark(mark); return err },
			"Page":       func() error { _, err := b.Page(t.Context(), q); return err },
			"CheckCSRF": func() error {
				ok, err := b.CheckCSRF(in.Session, csrf)
				if err == nil && !ok {
					return errors.New("not the session's")
				}
				return err
			},
		}
		for what, try := range tries {
			if err := try(); !errors.Is(err, afterlogin.ErrUnavailable) || httpauth.Status(err) != 503 {
				t.Errorf("%s while the keys cannot be read: %v, want ErrUnavailable", what, err)
			}
		}
		l.cut.Store(false)
		time.Sleep(2 * time.Second)
		for what, try := range tries {
			if err := try(); err != nil {
				t.Errorf("%s afterwards: %v", what, err)
			}
		}
	})
}
