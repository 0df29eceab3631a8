package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// canaries are the forms in which a secret could show: the whole token, its middle, and the bytes of its secret raw, in
// hexadecimal and in both alphabets of base64 at every alignment.
func canaries(t *testing.T, text string) [][]byte {
	t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(text[4:])
	if err != nil {
		t.Fatal(err)
	}
	secret := body[len(body)-16-24 : len(body)-16]
	out := [][]byte{[]byte(text), []byte(text[40:70]), secret, secret[:12], secret[12:], []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for skip := range 3 {
		out = append(out, []byte(base64.RawStdEncoding.EncodeToString(secret[skip:])[:20]), []byte(base64.RawURLEncoding.EncodeToString(secret[skip:])[:20]))
	}
	return out
}

// No token that was issued appears in the data directory, in logs, in events or in error texts.
func TestNoTokenLeaks(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	var mu sync.Mutex
	var texts []string // errors and events
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := keyring.Open(filepath.Join(dir, "keys.json"), bytes.Repeat([]byte{9}, keyring.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	c := newClock()
	a := authority(t, s, keys, c, func(config *afterlogin.Config) {
		config.Logger = logger
		config.Observe = func(e afterlogin.Event) {
			mu.Lock()
			defer mu.Unlock()
			texts = append(texts, strings.Join([]string{e.Type, string(e.Session), e.Subject, string(e.Reason), e.Detail, e.Cursor}, " "))
		}
	})
	var tokens []string
	note := func(i afterlogin.Issued, err error) afterlogin.Issued {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, i.Token.Reveal())
		return i
	}
	fail := func(_ any, err error) {
		if err == nil {
			t.Error("an error was expected")
			return
		}
		texts = append(texts, err.Error())
	}
	for range 50 {
		in := note(a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Device: afterlogin.Client{UserAgent: "x"}}))
		note(a.Issue(ctx, afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Scopes: []string{"a"}}))
		c.pass(15 * time.Minute)
		next := note(a.Rotate(ctx, in.Token, session()))
		if got := answer(a, next.Token); got != "good" {
			t.Fatal(got)
		}
		up := note(a.StepUp(ctx, next.Token, afterlogin.Authentication{Methods: []string{"otp"}}, afterlogin.Client{}))
		c.pass(2 * time.Minute)
		fail(a.Validate(ctx, in.Token, session()))
		fail(a.Validate(ctx, up.Token, session()))
		fail(a.Validate(ctx, afterlogin.TokenFrom(up.Token.Reveal()[:87]+"~"), session()))
		ex, err := a.Explain(ctx, up.Token, afterlogin.Client{})
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range ex.Steps {
			texts = append(texts, step.Note)
		}
	}
	a.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	places := scan(t, dir) // the records stand in the write-ahead log
	throughTables(t, filepath.Join(dir, "store"))
	maps.Copy(places, scan(t, dir))
	places["the log"], places["errors and events"] = log.Bytes(), []byte(strings.Join(texts, "\n"))
	for _, tok := range tokens {
		if place := findToken(t, places, tok); place != "" {
			t.Fatalf("a token, or its secret, stands in %s", place)
		}
	}
}

// The scan sees a token in the write-ahead log, and in a table, whose blocks Pebble compresses.
func TestCanaryScanFinds(t *testing.T) {
	dir := t.TempDir()
	s, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := authority(t, s, keyring.New(), newClock())
	in, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	text := in.Token.Reveal()
	id := store.SubjectID(1, "planted")
	for v := range uint64(20) { // that one block says the same again and again, so that there is something to compress
		r := &store.Record{ID: id, Tenant: 1, Version: v + 1, Client: strings.Repeat(text, 4)}
		if err := s.Apply(ctx, id, store.Put(r, v)); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if place := findToken(t, scan(t, dir), text); !strings.HasSuffix(place, ".log") {
		t.Errorf("a token in the write-ahead log is found in %q", place)
	}
	throughTables(t, dir)
	places := scan(t, dir)
	maps.DeleteFunc(places, func(place string, _ []byte) bool { return !strings.HasSuffix(place, decoded) })
	if place := findToken(t, places, text); place == "" {
		t.Errorf("a token in a table is not found in any of %d", len(places))
	}
}

// throughTables has the store in dir write what is in its write-ahead log into tables, as it does when it is opened.
func throughTables(t *testing.T, dir string) {
	t.Helper()
	s, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if tables, err := filepath.Glob(filepath.Join(dir, "*.sst")); err != nil || len(tables) == 0 {
		t.Fatalf("there are no tables: %v", err)
	}
}

// decoded ends the name of a place that is a table as its reader sees it.
const decoded = ", decoded"

// scan returns what stands in the files under dir, by place, and of Pebble's tables also what they hold decompressed.
func scan(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	places := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if places[path], err = os.ReadFile(path); err == nil && filepath.Ext(path) == ".sst" {
			places[path+decoded], err = readTable(path)
		}
		return err
	})
	if err != nil || len(places) < 3 {
		t.Fatalf("%d places scanned: %v", len(places), err)
	}
	return places
}

// readTable returns every key and value that is in a table, those that are overwritten too.
func readTable(path string) ([]byte, error) {
	f, err := vfs.Default.Open(path)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, sstable.ReaderOptions{})
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	defer r.Close()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []byte
	for kv := it.First(); kv != nil; kv = it.Next() {
		v, _, err := kv.Value(nil)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, kv.K.UserKey...), v...), '\n')
	}
	return out, it.Error()
}

// findToken returns a place in which the token shows, or its secret; empty if there is none.
func findToken(t *testing.T, places map[string][]byte, text string) string {
	t.Helper()
	for _, canary := range canaries(t, text) {
		for place, b := range places {
			if bytes.Contains(b, canary) {
				return place
			}
		}
	}
	return ""
}
