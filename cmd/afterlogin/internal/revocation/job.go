package revocation

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// A State is how far a job is.
type State string

// The states, in the order of a job's life.
const (
	Counting  State = "counting" // how many match, by a look through the whole store
	Ready     State = "ready"    // somebody has to confirm the number
	Freezing  State = "freezing" // one after the other is put on hold
	Frozen    State = "frozen"   // all of them are, until UndoUntil
	Revoking  State = "revoking" // what was frozen is ended
	Done      State = "done"
	Thawing   State = "thawing" // what was frozen is taken off hold
	Undone    State = "undone"
	Cancelled State = "cancelled" // before anything was frozen
	Failed    State = "failed"    // Why says why. Nothing stays frozen, unless it had begun to end what it froze
)

// Over reports whether nothing happens to the job any more.
func (s State) Over() bool {
	return s == Done || s == Undone || s == Cancelled || s == Failed
}

// working reports whether somebody has to work at the job.
func (s State) working() bool {
	return s == Counting || s == Freezing || s == Revoking || s == Thawing
}

// Limits of a job.
const (
	DefaultUndo = 10 * time.Minute
	MaxUndo     = 24 * time.Hour
	MaxExamples = 20
	maxGroups   = 10        // policies and clients that are named
	readyFor    = time.Hour // how long a number can be confirmed
)

// A Group is how many of the sessions have something in common.
type Group struct {
	Name  string `json:"n"`
	Count int    `json:"c"`
}

// Preview is what a look through the whole store has found.
type Preview struct {
	Matched  int                    `json:"m"`
	Held     int                    `json:"h,omitempty"` // of Matched: on hold already, by somebody else
	LeftOut  int                    `json:"l,omitempty"` // match besides, and whoever asks may not end them
	Kinds    []Group                `json:"k,omitempty"`
	Policies []Group                `json:"p,omitempty"` // the largest first, at most 10
	Clients  []Group                `json:"a,omitempty"` // those with a client
	Examples []afterlogin.SessionID `json:"x,omitempty"` // at most 20
	At       time.Time              `json:"t"`
}

// Rights are what the one who asks for a job may end besides sessions.
type Rights struct {
	Keys  bool `json:"k,omitempty"` // API keys and offline grants
	Admin bool `json:"a,omitempty"` // what belongs to the server itself
}

// A Job is one revocation by a query. It is a snapshot.
type Job struct {
	ID      string        `json:"id"`
	Query   string        `json:"q"`
	All     bool          `json:"all,omitempty"` // everything was asked for by name
	DryRun  bool          `json:"dry,omitempty"`
	Undo    time.Duration `json:"u"`
	State   State         `json:"s"`
	Created time.Time     `json:"t"`
	By      string        `json:"by"`          // who asked for it
	Spared  []string      `json:"x,omitempty"` // the credentials that it was asked for and confirmed with, which are left alone
	Rights  Rights        `json:"r"`
	Preview Preview       `json:"p"`

	Confirmed   time.Time `json:"ct,omitzero"`
	ConfirmedBy string    `json:"cby,omitempty"`
	Most        int       `json:"cm,omitempty"` // how many may be frozen, and ended
	Began       bool      `json:"bg,omitempty"` // without an undo window: they were counted once more, and ending has begun

	Frozen    int       `json:"f,omitempty"`  // how many were put on hold
	Held      int       `json:"hl,omitempty"` // how many others are meant that somebody else had put on hold
	FrozenAt  time.Time `json:"ft,omitzero"`
	UndoUntil time.Time `json:"ut,omitzero"`
	Revoked   int       `json:"d,omitempty"`
	Thawed    int       `json:"w,omitempty"`
	Gone      int       `json:"g,omitempty"`  // had ended by themselves meanwhile, or were taken off hold one by one
	AtLeast   bool      `json:"al,omitempty"` // Revoked, or Thawed, is at least: the work was interrupted

	Finished time.Time `json:"e,omitzero"`
	Stopped  string    `json:"eby,omitempty"` // who undid or cancelled it
	Why      string    `json:"y,omitempty"`   // why it failed, in plain words

	Progress Progress `json:"-"`

	entry *afterlogin.Entry
}

// Progress is how far the work is that goes on now.
type Progress struct {
	Phase   State         `json:"s"`
	Done    int           `json:"d"`
	Total   int           `json:"t,omitempty"` // 0: not known
	Looked  int           `json:"l"`           // how many sessions were looked at
	Began   time.Time     `json:"b"`
	Updated time.Time     `json:"u"`
	Rate    float64       `json:"r,omitempty"`  // a second
	Left    time.Duration `json:"e,omitempty"`  // about; 0: not known
	Waiting string        `json:"w,omitempty"`  // what it waits for, if it does: the store, or the clock
	Owner   string        `json:"o"`            // the server that works at it
	Taken   int           `json:"x,omitempty"`  // how often another server went on with it
	AtLeast bool          `json:"al,omitempty"` // what was done between the last word of another server and its end is not in Done
	Unsure  bool          `json:"un,omitempty"` // the store did not say of a freeze whether it was done: it may come true yet
}

// Reason is what the sessions are frozen for, by which the job knows its own again. It stands in the sessions' records:
// what a job has frozen is known exactly, whoever works at it and whenever.
func (j *Job) Reason() afterlogin.Reason { return afterlogin.Reason(j.ID) }

// Prefix begins the ids of jobs. Nobody else may freeze for a reason that begins like this.
const Prefix = "rev_"

var text32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID makes an id that names the job's slot.
func newID(slot int) string {
	b := make([]byte, 10)
	rand.Read(b)
	b[0] = byte(slot)
	return Prefix + text32.EncodeToString(b)
}

// slotOf returns the slot of a job, and false for what is no job's id.
func slotOf(id string) (int, bool) {
	text, ok := strings.CutPrefix(id, Prefix)
	b, err := text32.DecodeString(text)
	if !ok || err != nil || len(b) != 10 || int(b[0]) >= slots || Prefix+text32.EncodeToString(b) != id {
		return 0, false
	}
	return int(b[0]), true
}

// over reports whether the slot of the job can be used again.
func (j *Job) over(now time.Time) bool {
	return j.State.Over() || j.State == Ready && (j.DryRun || now.Sub(j.Preview.At) > readyFor)
}

// timed reports whether the job is at an end of its undo window, which goes by the clock: the window is over, or begins when
// all are frozen.
func (j *Job) timed(now time.Time) bool {
	return j.State == Freezing || j.State == Frozen && !now.Before(j.UndoUntil)
}

func (j *Job) parse() (*query.Query, error) { return query.Parse(j.Query) }

// aims reports whether the job is about the session, as of the moment at which it was made. Who signs in after it was
// confirmed is not meant.
func (j *Job) aims(q *query.Query, s *afterlogin.Session) (aimed, allowed bool) {
	if !s.Ended.IsZero() || !j.Confirmed.IsZero() && s.Created.After(j.Confirmed) || slices.Contains(j.Spared, string(s.ID)) || !q.Match(s, j.Created) {
		return false, false
	}
	return true, j.allows(s)
}

// allows reports whether the job may end the session, if it means it.
func (j *Job) allows(s *afterlogin.Session) bool {
	return (j.Rights.Admin || !strings.HasPrefix(s.Subject, reserved)) && (j.Rights.Keys || s.Kind == afterlogin.KindSession)
}

// own reports whether the job has frozen the session. It needs no query.
func (j *Job) own(s *afterlogin.Session) bool {
	return s.Frozen() && s.Why == j.Reason() && j.allows(s)
}

// reserved begins the subjects that belong to the server itself.
const reserved = "afterlogin/"

// maxDetail is the greatest size of an entry's detail, in bytes.
const maxDetail = 5 << 10

// encode writes a job, or its progress, as an entry's detail. A query is shown as it is: < is no tag here.
func encode(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// encode leaves away of the preview what does not fit into an entry: names may be long.
func (j *Job) encode() (json.RawMessage, error) {
	for c := *j; ; {
		b, err := encode(&c)
		if err != nil || len(b) <= maxDetail {
			return b, err
		}
		switch p := &c.Preview; {
		case len(p.Clients) > 0:
			p.Clients = p.Clients[:len(p.Clients)-1]
		case len(p.Policies) > 0:
			p.Policies = p.Policies[:len(p.Policies)-1]
		case len(p.Examples) > 0:
			p.Examples = p.Examples[:len(p.Examples)-1]
		default:
			return nil, errors.New("revocation: the job does not fit into an entry")
		}
	}
}

func decodeJob(e *afterlogin.Entry) (*Job, error) {
	j := &Job{entry: e}
	if err := json.Unmarshal(e.Detail, j); err != nil || j.ID == "" {
		return nil, errors.Join(errors.New("revocation: an entry does not hold a job"), err)
	}
	return j, nil
}

// tally counts by name.
type tally map[string]int

// maxTally bounds how many names are counted, since strangers can register clients. What has no room is counted together.
const maxTally = 10_000

func (t tally) add(name string) {
	if _, has := t[name]; !has && len(t) >= maxTally {
		name = "…"
	}
	t[name]++
}

// top returns the largest groups.
func (t tally) top(n int) []Group {
	var gs []Group
	for name, c := range t {
		gs = append(gs, Group{clip(name), c})
	}
	slices.SortFunc(gs, func(a, b Group) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Name, b.Name)
	})
	return gs[:min(n, len(gs))]
}

func clip(s string) string {
	if len(s) <= 64 {
		return s
	}
	return strings.ToValidUTF8(s[:61], "") + "…"
}
