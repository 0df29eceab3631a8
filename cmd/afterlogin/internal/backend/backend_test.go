package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestName(t *testing.T) {
	for address, want := range map[string]string{
		"":                                   "embedded",
		"redis://127.0.0.1:6379":             "redis://127.0.0.1:6379",
		"redis://:secret@h:6379/2?db=1":      "redis://h:6379/2",
		"redis://u:se@cret@h:1,h2:2":         "redis://h:1,h2:2",
		"redis+sentinel://u:p@a:1,b:2/main":  "redis+sentinel://a:1,b:2/main",
		"postgres://mia:p%40ss@db:5432/al?a": "postgres://db:5432/al",
		"postgresql://db/al#secret":          "postgresql://…",
		"postgres://u:123456?x@db:5432/d":    "postgres://…",
		"postgres://u:123456#x@db:5432/d":    "postgres://…",
		"postgres://u:123456/x@db:5432/d":    "postgres://…",
		"postgres://db/d?user=u:123456@x":    "postgres://…",
		"mysql://u:secret@db":                "…://…",
		"secret":                             "…://…",
		"postgres://mia:123456":              "postgres://mia",
		"redis://h:secret":                   "redis://h",
		"REDIS://h":                          "redis://h",
		"redis://[::1]:6379":                 "redis://[::1]:6379",
		"redis://a\nb":                       "redis://…",
	} {
		if got := Name(address); got != want {
			t.Errorf("Name(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, good := range []string{"redis://h", "rediss://h:1", "redis+sentinel://a,b/n", "postgres://h/d", "postgresql://h", "REDIS://h"} {
		if err := Check(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"h", "", "mysql://u:secret@h", "secret://", "redis://", "redis:// h", "u:secret@h:1/x://y", "redis://" + strings.Repeat("a", 5000),
		"postgres://u:secret?x@h/d", "postgres://u:secret#x@h/d", "postgres://u:secret/x@h/d", "postgres://u:x@h/d#secret", "postgres://h/d?application_name=u:secret@x"} {
		err := Check(bad)
		if err == nil || strings.Contains(err.Error(), "u:secret") || strings.Contains(err.Error(), "u:x") {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

// Whatever a driver says, its error as it gets out holds no password.
func TestScrub(t *testing.T) {
	cause := errors.New("the cause")
	for _, address := range []string{
		"redis://mia:pw-canary@h:1", "postgres://mia:pw%2Dcanary@h/d", "postgres://h/d?password=pw-canary", "redis://h/?sentinel_password=pw-canary&x=1",
	} {
		err := scrub(fmt.Errorf("dial %s, or %s: password pw-canary: %w", address, address[5:], cause), address)
		if strings.Contains(err.Error(), "canary") || !errors.Is(err, cause) {
			t.Errorf("%s: %v", address, err)
		}
		if !HasPassword(address) {
			t.Errorf("%s has a password", address)
		}
	}
	if HasPassword("postgres://mia@h/d") || HasPassword("redis://h:6379") {
		t.Error("there is no password")
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, address := range []string{"mysql://u:pw-canary@h", "redis://u:pw-canary@127.0.0.1:1", "postgres://u:pw-canary@127.0.0.1:1/d", "postgres://u:pw-canary@127.0.0.1:99999999/d", "redis://u:pw-canary@127.0.0.1:x%zz"} {
		_, err := Open(ctx, address, t.TempDir(), slog.New(slog.DiscardHandler))
		var setup *SetupError
		if !errors.As(err, &setup) || strings.Contains(fmt.Sprintf("%v %+v %s", err, err, setup.Hint), "canary") {
			t.Errorf("%s: %v", Name(address), err)
		}
	}
	b, err := Open(ctx, "", t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil || b.Writable() != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// The addresses are made of parts, so that the password is known without taking them apart.
func FuzzName(f *testing.F) {
	f.Add("pw-canary")
	f.Add("123456?x")
	f.Add("12345#x")
	f.Add("123/456")
	f.Add("p@ss@word")
	f.Add("p%40ss:w%zzord,x")
	f.Add("[::1]:99 \n")
	f.Fuzz(func(t *testing.T, password string) {
		for _, form := range []string{
			"postgres://mia:%s@db:5432/al", "redis://:%s@h:6379,h2:6379/?cluster", "redis+sentinel://mia:%s@a:1,b:2/main?db=1",
			"postgres://db/al?password=%s", "redis://h/?db=1&sentinel_password=%s", "postgres://db/al?p%%61ssword=%s", "postgres://db/al?application_name=%s",
		} {
			inQuery := strings.Contains(form, "?") && strings.Index(form, "%s") > strings.Index(form, "?")
			for _, p := range []string{password, url.QueryEscape(password), url.PathEscape(password)} {
				without := fmt.Sprintf(form, "")
				if len(p) < 4 || strings.Contains(without, p) || inQuery && strings.Contains(p, "&") {
					continue
				}
				address := fmt.Sprintf(form, p)
				if name := Name(address); strings.Contains(name, p) || strings.Contains(name, password) && !strings.Contains(without, password) {
					t.Errorf("%q: the name %q holds the password", address, name)
				}
				err := Check(address)
				if err != nil {
					if len(p) > 12 && strings.Contains(err.Error(), p) {
						t.Errorf("%q: the fault %q holds the password", address, err)
					}
					continue
				}
				if strings.Contains(form, "application_name") {
					continue // no password, and yet not to be in the name
				}
				if !HasPassword(address) {
					t.Errorf("%q has a password", address)
				}
				if got := scrub(fmt.Errorf("<%s> in <%s>", p, address), address).Error(); strings.Contains(got, "<"+p) || strings.Contains(got, address) {
					t.Errorf("%q: the error %q holds the password", address, got)
				}
			}
		}
	})
}
