package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of a webhook, chosen so that its entry holds it whatever the store's cursors look like.
const (
	// Max is how many webhooks there are at most.
	Max            = 100
	maxURL         = 1024
	maxPatterns    = 20
	maxDescription = 200
	maxError       = 160
	maxTwins       = 8
	maxRequests    = 8
	maxOld         = 3    // secrets before the current one that sign, too
	maxCursor      = 1200 // of a Redis Cluster: less than 1100
	maxRecord      = 5 << 10
	maxOutbox      = 100_000 // events that wait: then the stream is not read on, and waits itself
)

// layout is that of a record and of an item.
const layout = 1

// A record is what a webhook's entry says. What is configured is changed by whoever is asked to; the rest by the server
// that delivers, but for what it is asked to send again.
type record struct {
	Layout int `json:"v"`

	ID          string   `json:"id"`
	Created     int64    `json:"created"`
	URL         string   `json:"url"`
	Events      []string `json:"events"`
	Description string   `json:"desc,omitempty"`
	Disabled    bool     `json:"off,omitempty"`
	Why         string   `json:"why,omitempty"` // it was disabled, if nobody did it
	Deleted     bool     `json:"gone,omitempty"`
	Changed     int64    `json:"changed,omitempty"`
	Secret      string   `json:"secret,omitempty"`
	Old         []old    `json:"old,omitempty"`  // those before it, the last one first
	Kick        uint64   `json:"kick,omitempty"` // counted up: try again now
	Requests    []again  `json:"again,omitempty"`
	Asked       uint64   `json:"asked,omitempty"` // the number of the last of Requests that there was

	State state `json:"s"`
}

// old is a secret that signs, too, for a while: nobody here knows which one the receiver has.
type old struct {
	Secret string `json:"secret"`
	Until  int64  `json:"until"`
}

// again asks for dead letters to be sent again: those from From to before To.
type again struct {
	N    uint64 `json:"n"`
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// state is how far a webhook's delivery is. Times are in milliseconds since 1970.
type state struct {
	Holder string `json:"holder,omitempty"` // the server that delivers
	Term   uint64 `json:"term,omitempty"`   // counted up with each change of it
	Until  int64  `json:"until,omitempty"`  // the lease's end

	// Cursor is the last event that was delivered or parked, or not asked for. Empty: it goes on behind a gap.
	Cursor string `json:"cursor,omitempty"`
	Gaps   uint64 `json:"gaps,omitempty"`
	LastAt int64  `json:"last_at,omitempty"` // of the event at Cursor
	Twins  []twin `json:"twins,omitempty"`

	// The outbox holds what waits under the numbers from Head to before Tail.
	Head      uint64 `json:"head,omitempty"`
	Tail      uint64 `json:"tail,omitempty"`
	Oldest    int64  `json:"oldest,omitempty"` // when what is at Head came
	Tries     int    `json:"tries,omitempty"`  // of what is at Head
	Refusals  int    `json:"refusals,omitempty"`
	Faults    int    `json:"faults,omitempty"` // answers 5xx among the tries
	Passed    bool   `json:"passed,omitempty"` // one behind Head was taken after them
	Taken     uint64 `json:"taken,omitempty"`  // its bit n: the one n behind Head was taken
	NextTry   int64  `json:"next,omitempty"`
	Redone    uint64 `json:"redone,omitempty"`    // the last of Requests that is done
	RedoneTo  uint64 `json:"redone_to,omitempty"` // of the one after it: the dead letters before it are done
	DeadFrom  uint64 `json:"dead_from,omitempty"` // dead letters have the numbers from DeadFrom to before DeadTo
	DeadTo    uint64 `json:"dead_to,omitempty"`
	DeadAgain uint64 `json:"dead_again,omitempty"` // how many of them were sent again

	Failures    int    `json:"failures,omitempty"` // in a row
	LastSuccess int64  `json:"ok_at,omitempty"`
	LastFailure int64  `json:"bad_at,omitempty"`
	LastStatus  int    `json:"status,omitempty"`
	LastError   string `json:"error,omitempty"`
}

// waiting is how many events are in the outbox.
func (s *state) waiting() uint64 { return s.Tail - s.Head }

// full reports whether nothing more is to be put in the outbox.
func (s *state) full() bool { return s.waiting() >= maxOutbox }

// dead is how many dead letters there are that were not sent again.
func (s *state) dead() uint64 {
	n := s.DeadTo - s.DeadFrom
	return n - min(n, s.DeadAgain)
}

// errTooLarge is a record that does not fit with what may still be added to it.
var errTooLarge = errors.New("the webhook's URL, events and description are too long together")

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encode returns the record as its entry has it.
func (r *record) encode() ([]byte, error) {
	r.Layout = layout
	b, err := encode(r)
	if err == nil && len(b) > maxRecord {
		err = errTooLarge
	}
	return b, err
}

// fits reports whether the record can be encoded whatever will become of its state.
func (r *record) fits() error {
	full := *r
	const n = 1 << 42 // a time is less, and no number of events gets there
	full.ID, full.Created, full.Why, full.Kick, full.Asked = strings.Repeat("x", idSize), n, strings.Repeat("x", 60), n, n
	full.Disabled, full.Changed, full.Requests, full.Old = true, n, nil, nil
	for range maxOld {
		full.Old = append(full.Old, old{full.Secret, n})
	}
	for range maxRequests {
		full.Requests = append(full.Requests, again{n, n, n})
	}
	full.State = state{
		strings.Repeat("x", maxHolder), n, n, strings.Repeat("x", maxCursor), n, n, nil, n, n, n, 1 << 30, 1 << 30, 1 << 30, true, 1 << 63, n, n, n, n, n, n, 1 << 30, n, n, 999,
		strings.Repeat("x", maxError),
	}
	for range maxTwins {
		full.State.Twins = append(full.State.Twins, twin{Hash: 1 << 63, N: 9})
	}
	_, err := full.encode()
	return err
}

// decodeRecord reads what encode wrote.
func decodeRecord(b []byte) (*record, error) {
	if len(b) > maxRecord {
		return nil, errors.New("it is too large")
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("it is not JSON of the right form")
	}
	s := &r.State
	switch {
	case r.Layout != layout:
		return nil, fmt.Errorf("layout %d is of a newer program", r.Layout)
	case r.Deleted:
		return r, nil
	case !validID(r.ID) || len(r.Old) > maxOld:
		return nil, errors.New("its id or its secrets cannot be read")
	case r.URL == "" || len(r.URL) > maxURL || len(r.Events) > maxPatterns || len(r.Events) == 0 || len(r.Description) > maxDescription:
		return nil, errors.New("a field is missing or too long")
	case s.Head > s.Tail || uint64(bits.Len64(s.Taken)) > s.waiting() || s.DeadFrom > s.DeadTo || s.Redone > r.Asked || len(s.Cursor) > maxCursor || len(s.Twins) > maxTwins || len(r.Requests) > maxRequests:
		return nil, errors.New("its numbers do not go together")
	}
	for _, q := range r.Requests {
		if q.From > q.To || q.To > s.DeadTo || q.N > r.Asked {
			return nil, errors.New("its numbers do not go together")
		}
	}
	if _, err := parseSecret(r.Secret); err != nil {
		return nil, err
	}
	for _, o := range r.Old {
		if _, err := parseSecret(o.Secret); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// secrets are those that sign at the time, the current one first.
func (r *record) secrets(now time.Time) (out []Secret) {
	texts := []string{r.Secret}
	for _, o := range r.Old {
		if now.UnixMilli() < o.Until {
			texts = append(texts, o.Secret)
		}
	}
	for _, text := range texts {
		if s, err := parseSecret(text); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// rotate gives the record a new secret. It reports false if as many sign already as there may be.
func (r *record) rotate(s Secret, now time.Time) bool {
	r.Old = slices.DeleteFunc(r.Old, func(o old) bool { return now.UnixMilli() >= o.Until })
	if len(r.Old) >= maxOld {
		return false
	}
	r.Old = slices.Insert(r.Old, 0, old{r.Secret, now.Add(overlap).UnixMilli()})
	r.Secret = s.Reveal()
	return true
}

// clean makes one printable line of a text, of at most n bytes.
func clean(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r == '"' || r == '\\' || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-3], "") + "…"
	}
	return s
}

func checkDescription(s string) error {
	if len(s) > maxDescription || !utf8.ValidString(s) {
		return bad("description", "want at most %d bytes of text", maxDescription)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return bad("description", "want one line")
		}
	}
	return nil
}

// A FieldError is a mistake in what a webhook is to be.
type FieldError struct {
	Field   string // url, events, description, …
	Message string // what is wrong with it, and the remedy
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

func bad(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}
