package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
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
	places := map[string][]byte{"the log": log.Bytes(), "errors and events": []byte(strings.Join(texts, "\n"))}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		places[path] = b
		return err
	})
	if err != nil || files < 3 {
		t.Fatalf("%d files scanned: %v", files, err)
	}
	for _, tok := range tokens {
		for _, canary := range canaries(t, tok) {
			for place, b := range places {
				if bytes.Contains(b, canary) {
					t.Fatalf("a token, or its secret, stands in %s", place)
				}
			}
		}
	}
}
