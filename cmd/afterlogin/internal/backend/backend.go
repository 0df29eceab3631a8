// Package backend opens the store that a server's settings name: the embedded one in a data directory, or one that many
// servers share. It owns the forms of the store's address, and that no password of one is ever printed.
//
// Start with [Open].
package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// A Backend is a store as a server needs it.
type Backend interface {
	store.Bulk
	// Writable reports whether the store can take changes now, as far as that is known without asking it.
	Writable() error
}

// Dir is the directory of the embedded store in a data directory.
const Dir = "store"

// Forms are the addresses that Open takes, for messages.
const Forms = "redis://HOST:6379, rediss://HOST:6380, redis://HOST:7000,HOST:7000/?cluster, redis+sentinel://HOST:26379,HOST:26379/NAME, postgres://USER@HOST:5432/DATABASE, or nothing for the embedded store"

// A SetupError is why a server cannot start, and what to do about it.
type SetupError struct {
	Err  error
	Hint string
}

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SetupError) Unwrap() error { return e.Err }

func setup(hint, format string, args ...any) error {
	return &SetupError{Err: fmt.Errorf(format, args...), Hint: hint}
}

// opener returns what opens the stores of a scheme, nil if nothing does.
func opener(scheme string) func(ctx context.Context, address string, log *slog.Logger) (Backend, error) {
	switch strings.ToLower(scheme) {
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel":
		return openRedis
	case "postgres", "postgresql":
		return openPostgres
	}
	return nil
}

// Open opens the store at the address, the embedded one in the data directory if it is empty. The error, often a
// *SetupError, does not repeat a password.
func Open(ctx context.Context, address, dataDir string, log *slog.Logger) (Backend, error) {
	if address == "" {
		return openPebble(filepath.Join(dataDir, Dir), log)
	}
	if err := Check(address); err != nil {
		return nil, setup("the forms are "+Forms, "store: %w", err)
	}
	scheme, _, _ := strings.Cut(address, "://")
	b, err := opener(scheme)(ctx, address, log)
	if err != nil {
		return nil, setup("see that it runs and can be reached from here, and that the address, the user and the password are right", "the store %s: %w", Name(address), scrub(err, address))
	}
	return b, nil
}

// Shared reports whether the store at the address is one that several servers may use at once.
func Shared(address string) bool { return address != "" }

// Check reports what is wrong with the form of an address. The error does not repeat it.
func Check(address string) error {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return errors.New("the address has no scheme")
	}
	if opener(scheme) == nil {
		if !plain(scheme) { // whatever was typed there, it is not to be printed
			scheme = "…"
		}
		return fmt.Errorf("no store is known by %s://", scheme)
	}
	if len(address) > 4<<10 {
		return errors.New("the address is over 4096 bytes")
	}
	if rest == "" || strings.ContainsAny(address, " \t\r\n") {
		return errors.New("the address names no host, or there is a space in it")
	}
	// Whoever reads such an address does not know where the password ends: some take what is behind these for something else.
	if at := strings.LastIndexByte(rest, '@'); strings.Contains(rest, "#") || at >= 0 && strings.ContainsAny(rest[:at], "/?") {
		return errors.New("there is a # in the address, or a / or a ? before its last @: in a user, a password or a setting write # as %23, / as %2F, ? as %3F and @ as %40")
	}
	return nil
}

func plain(s string) bool {
	return len(s) <= 20 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789+-.") == ""
}

// split takes an address apart, without the errors of net/url, which repeat what they were given: the user's part, the
// hosts, the path and the query.
func split(address string) (scheme, user, hosts, path, query string) {
	scheme, rest, _ := strings.Cut(address, "://")
	rest, _, _ = strings.Cut(rest, "#")
	rest, query, _ = strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		user, rest = rest[:i], rest[i+1:]
	}
	hosts, path, _ = strings.Cut(rest, "/")
	return strings.ToLower(scheme), user, hosts, path, query
}

// Name returns what may be logged of an address: its scheme, hosts and database. It is "embedded" for the empty one, and
// the scheme alone, if that, of one that Check refuses.
func Name(address string) string {
	if address == "" {
		return "embedded"
	}
	scheme, _, hosts, path, _ := split(address)
	if Check(address) != nil {
		if opener(scheme) == nil {
			scheme = "…"
		}
		return scheme + "://…"
	}
	var names []string
	for h := range strings.SplitSeq(hosts, ",") {
		if host, port, err := net.SplitHostPort(h); err == nil && port != "" {
			if _, err := strconv.ParseUint(port, 10, 16); err != nil {
				h = host // what stands there is no port; who knows what it is
			}
		}
		names = append(names, h)
	}
	name := scheme + "://" + strings.Join(names, ",")
	if path != "" {
		name += "/" + path
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return '?'
		}
		return r
	}, name)
}

// HasPassword reports whether the address holds a password.
func HasPassword(address string) bool { return len(passwords(address)) > 0 }

// passwords returns every form in which the address's passwords might be repeated.
func passwords(address string) (all []string) {
	_, user, _, _, query := split(address)
	add := func(s string) {
		if s == "" {
			return
		}
		all = append(all, s)
		for _, unescape := range []func(string) (string, error){url.PathUnescape, url.QueryUnescape} {
			if plain, err := unescape(s); err == nil && plain != "" {
				all = append(all, plain, url.PathEscape(plain), url.QueryEscape(plain))
			}
		}
	}
	if _, password, ok := strings.Cut(user, ":"); ok {
		add(password)
	}
	for pair := range strings.SplitSeq(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(k); err == nil {
			k = plain
		}
		if strings.Contains(strings.ToLower(k), "pass") {
			add(v)
		}
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	return slices.Compact(all)
}

// scrub returns an error whose text repeats neither the address nor its passwords, whatever a driver put there.
func scrub(err error, address string) error {
	text := strings.ReplaceAll(err.Error(), address, Name(address))
	for _, p := range passwords(address) {
		text = strings.ReplaceAll(text, p, "[password]")
	}
	if text == err.Error() {
		return err
	}
	return &scrubbed{err, text}
}

type scrubbed struct {
	err  error
	text string
}

func (s *scrubbed) Error() string { return s.text }

// Is compares with the cause, which is not given out, since it would print what was taken away.
func (s *scrubbed) Is(target error) bool { return errors.Is(s.err, target) }

func openPebble(dir string, log *slog.Logger) (Backend, error) {
	s, err := pebblestore.Open(dir, pebblestore.Options{Logger: log})
	var path *fs.PathError
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, pebblestore.ErrInUse):
		return nil, setup("stop the afterlogin that is running there, or name another directory with --data", "%w", err)
	case errors.As(err, &path), errors.Is(err, fs.ErrPermission):
		return nil, setup("name another directory with --data, or give this one to the user that this program runs as", "%w", err)
	}
	return nil, fmt.Errorf("open the store: %w", err)
}
