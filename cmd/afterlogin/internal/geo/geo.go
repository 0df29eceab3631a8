// Package geo says roughly where an address is: "Berlin, Germany". The places come from a database that the operator
// has, a file in the MaxMind DB format; of addresses that are nowhere in the world it says what they are. It is for
// people to read, and decides nothing. Start with [Open]; [NetworkOf] needs no database.
package geo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Limits.
const (
	// MaxSize is the greatest database, in bytes. It is read into memory as it is: a file that is mapped and then cut
	// short by somebody would end the process.
	MaxSize = 512 << 20
	maxName = 64 // of a city or a country, in characters
	// recheck is how often the file is looked at.
	recheck = time.Minute
)

// Options configure Open. Path is required.
type Options struct {
	Path string // of the .mmdb file
	// Attribution is what pages with places say about where these come from, in the place of what the database's license
	// asks for. An address at its end, https://…, becomes a link.
	Attribution string
	// Logger receives what an operator should know: never an address. Nil discards.
	Logger *slog.Logger
	Now    func() time.Time // nil means time.Now
}

// A DB is an open database. A nil one knows no place. It is safe for concurrent use.
type DB struct {
	o   Options
	log *slog.Logger
	now func() time.Time

	current atomic.Pointer[database]
	next    atomic.Int64 // when the file is to be looked at, in milliseconds
	failed  atomic.Bool  // a look-up has failed since the file was read

	mu     sync.Mutex // guards seen, closed and the start of a look
	seen   fs.FileInfo
	closed bool
	looks  sync.WaitGroup
}

// database is one file's contents.
type database struct {
	reader *maxminddb.Reader
	typ    string
	text   string // its type and its description
}

// Open reads the database. The error is of one that is missing, too large or broken.
func Open(o Options) (*DB, error) {
	d := &DB{o: o, log: o.Logger, now: o.Now}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	found, info, err := read(o.Path)
	if err != nil {
		return nil, err
	}
	d.current.Store(found)
	d.seen = info
	d.next.Store(d.now().Add(recheck).UnixMilli())
	return d, nil
}

// Close waits for a look at the file that is under way. Places are known afterwards, too.
func (d *DB) Close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.looks.Wait()
}

// Type returns what the database says it is: "GeoLite2-City".
func (d *DB) Type() string { return d.current.Load().typ }

// read reads and checks the file.
func read(path string) (*database, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s is no file", path)
	case info.Size() > MaxSize:
		return nil, nil, fmt.Errorf("%s is larger than %d MiB", path, MaxSize>>20)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	found, err := parse(b)
	if err != nil {
		return nil, info, fmt.Errorf("%s is no database in the MaxMind DB format, or a broken one: %w", path, err)
	}
	return found, info, nil
}

// parse opens a database that may be anything.
func parse(b []byte) (d *database, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	r, err := maxminddb.OpenBytes(b, maxminddb.DisableStringCache())
	if err != nil {
		return nil, err
	}
	d = &database{reader: r, typ: clean(r.Metadata.DatabaseType)}
	d.text = strings.ToLower(d.typ + " " + clean(r.Metadata.Description["en"]))
	return d, nil
}

// Place returns roughly where the address is, in the language if the database has it and in English otherwise:
// "Berlin, Germany", "Germany", or "" if that is not known. It costs some microseconds and never waits.
func (d *DB) Place(addr netip.Addr, language string) string {
	if d == nil || NetworkOf(addr) != Public {
		return ""
	}
	d.look()
	at := d.current.Load()
	city, country, err := at.find(addr.Unmap().WithZone(""), language)
	if err != nil && !d.failed.Swap(true) {
		d.log.Warn("the database of places is broken: some places are not shown", "file", d.o.Path, "err", err)
	}
	switch {
	case country == "":
		return city
	case city == "" || city == country: // Singapore
		return country
	}
	return city + ", " + country
}

// find looks the address up. It knows the layouts of GeoLite2, GeoIP2 and DB-IP (names by language), and those of
// IPinfo (texts).
func (d *database) find(addr netip.Addr, language string) (city, country string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a record cannot be read: %v", p)
		}
	}()
	r := d.reader.Lookup(addr)
	if err := r.Err(); err != nil || !r.Found() {
		return "", "", err
	}
	var broken error
	first := func(paths ...[]any) string {
		broken = nil
		for _, p := range paths {
			var text string
			if err := r.DecodePath(&text, p...); err != nil {
				broken = errors.Join(broken, err) // often another layout
			} else if text = clean(text); text != "" {
				broken = nil
				return text
			}
		}
		return ""
	}
	city = first([]any{"city", "names", language}, []any{"city", "names", "en"}, []any{"city"})
	country = first([]any{"country", "names", language}, []any{"country", "names", "en"}, []any{"country_name"}, []any{"country"})
	if city == "" && country == "" {
		return "", "", broken
	}
	return city, country, nil
}

// clean makes text of a file fit to be shown: printable, and short.
func clean(text string) string {
	text = text[:min(len(text), 8*maxName)]
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text))
	if r := []rune(text); len(r) > maxName {
		text = string(r[:maxName-1]) + "…"
	}
	return text
}

// look has the file looked at, in the background and once a minute, and read again if it is another one.
func (d *DB) look() {
	now, due := d.now().UnixMilli(), d.next.Load()
	if now < due || !d.next.CompareAndSwap(due, now+recheck.Milliseconds()) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.looks.Go(d.reload)
	}
}

// reload reads the file if it has changed. A broken one is not taken: the one before stays.
func (d *DB) reload() {
	d.mu.Lock()
	seen := d.seen
	d.mu.Unlock()
	info, err := os.Stat(d.o.Path)
	if err == nil && seen != nil && os.SameFile(info, seen) && info.Size() == seen.Size() && info.ModTime().Equal(seen.ModTime()) {
		return
	}
	found, info, err := read(d.o.Path)
	d.mu.Lock()
	gone := d.seen == nil
	d.seen = info // a broken file is not read again and again
	d.mu.Unlock()
	if err != nil {
		if info != nil || !gone {
			d.log.Warn("the new database of places cannot be used, the old one stays", "file", d.o.Path, "err", err)
		}
		return
	}
	d.current.Store(found)
	d.failed.Store(false)
	d.log.Info("a new database of places is in use", "file", d.o.Path, "type", found.typ)
}
