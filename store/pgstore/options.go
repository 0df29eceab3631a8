package pgstore

import (
	"fmt"
	"log/slog"
	"regexp"
	"time"
)

// Options configure Open. The zero value works.
type Options struct {
	// Logger receives operational messages, never a record's content and never the password. Nil discards them.
	Logger *slog.Logger
	// Schema is the PostgreSQL schema that holds everything: lower-case letters, digits and underscores. It is made if it is
	// not there. Empty means "afterlogin". Installations that share a database have a schema each.
	Schema string
	// MaxConns is how many connections are used at a time, besides three for the feed. A quarter of them is kept free of Apply, so
	// that reads go on while changes wait for a standby. Zero means 16.
	MaxConns int
	// KeepEvents is for how long events are kept, at least, for watchers that are behind. Zero means 48 hours.
	KeepEvents time.Duration
}

var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,39}$`)

func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Schema == "" {
		o.Schema = "afterlogin"
	}
	if !schemaName.MatchString(o.Schema) {
		return fmt.Errorf("pgstore: Schema %q: want at most 40 lower-case letters, digits and underscores, no digit first", o.Schema)
	}
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.MaxConns < 2 || o.MaxConns > 10_000 {
		return fmt.Errorf("pgstore: MaxConns %d: want 2 to 10000", o.MaxConns)
	}
	if o.KeepEvents == 0 {
		o.KeepEvents = 48 * time.Hour
	}
	if o.KeepEvents < time.Minute {
		return fmt.Errorf("pgstore: KeepEvents %v: want a minute at least", o.KeepEvents)
	}
	return nil
}
