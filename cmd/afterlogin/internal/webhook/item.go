package webhook

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// An item is an event on its way.
type item struct {
	Layout int    `json:"v"`
	Term   uint64 `json:"term,omitempty"` // whose it is that parked it
	ID     string `json:"id"`
	At     int64  `json:"came"` // when it was parked
	Event  Event  `json:"event"`
	// Of a dead letter:
	Died   int64  `json:"died,omitempty"`
	Tries  int    `json:"tries,omitempty"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
	Again  int64  `json:"again,omitempty"` // when it was sent again

	cursor string // of the event, while it is in no outbox
	named  bool   // by naming.id
}

// An Event is what happened, as receivers get it. It holds no secret.
type Event struct {
	ID         string     `json:"id,omitempty"`
	Type       string     `json:"type"`
	At         time.Time  `json:"at"`
	Session    string     `json:"session,omitempty"`
	Root       string     `json:"root,omitempty"`
	Tenant     uint32     `json:"tenant,omitempty"`
	Subject    string     `json:"subject,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Detail     string     `json:"detail,omitempty"`
	Actor      string     `json:"actor,omitempty"`
	Except     string     `json:"except,omitempty"`
	Everything bool       `json:"everything,omitempty"`
	Since      *time.Time `json:"since,omitempty"`  // of events.missed: nothing is missing up to then
	Missed     uint64     `json:"missed,omitempty"` // of events.missed: how many, if that is known
}

func newEvent(e afterlogin.Event) Event {
	return Event{
		Type: e.Type, At: e.At.UTC(), Session: string(e.Session), Root: string(e.Root), Tenant: e.Tenant, Subject: e.Subject,
		Reason: string(e.Reason), Detail: e.Detail, Actor: e.Actor, Except: string(e.Except), Everything: e.Everything,
	}
}

// maxItem is the greatest size of an encoded item: that of an entry's detail.
const maxItem = 5 << 10

// encode returns the item as its entry has it. Its texts are bounded by what a store takes, and only control characters in
// them could make it too large: then the detail is left out.
func (i *item) encode() ([]byte, error) {
	i.Layout = layout
	b, err := encode(i)
	if err == nil && len(b) > maxItem {
		short := *i
		short.Event.Detail = ""
		if b, err = encode(&short); err == nil && len(b) > maxItem {
			err = errors.New("an event is too large")
		}
	}
	return b, err
}

// decodeItem reads what encode wrote.
func decodeItem(b []byte) (*item, error) {
	i := &item{}
	if len(b) > maxItem {
		return nil, errors.New("it is too large")
	}
	if err := json.Unmarshal(b, i); err != nil {
		return nil, errors.New("it is not JSON of the right form")
	}
	if i.Layout != layout || i.ID == "" || len(i.ID) > 64 || i.Event.Type == "" || i.Tries < 0 {
		return nil, errors.New("it is not an event on its way")
	}
	for _, c := range []byte(i.ID) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return nil, errors.New("it is not an event on its way")
		}
	}
	return i, nil
}

// A naming gives events their ids. An id is derived from all that an event says, its millisecond included, and from how
// many events before it said exactly the same: their number in the stream, which is the same for whoever reads it, since
// such events are of one record, and a store keeps each record's events in order. The place in the stream is no part of
// it: that has other names on other servers.
type naming struct {
	installation [16]byte
	seen         []twin // the last ones, oldest first
}

// A twin is what is remembered of an event, to tell it from another one that says the same.
type twin struct {
	Hash uint64 `json:"h"`
	N    int    `json:"n,omitempty"` // how many said the same before
}

// remembered is how many events are looked at for the same. Those that say the same are of the same millisecond.
const remembered = 1024

// id returns the id of the event, which must be the next one of the stream.
func (n *naming) id(e *afterlogin.Event) string {
	b := append([]byte("afterlogin/webhook-event/1\x00"), n.installation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.UnixMilli()))
	b = binary.BigEndian.AppendUint32(b, e.Tenant)
	for _, text := range []string{e.Type, string(e.Session), string(e.Root), e.Subject, string(e.Reason), e.Detail, e.Actor, string(e.Except)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	if e.Everything {
		b = append(b, 1)
	}
	sum := sha256.Sum256(b)
	t := twin{Hash: binary.BigEndian.Uint64(sum[:])}
	for i := len(n.seen) - 1; i >= 0; i-- {
		if n.seen[i].Hash == t.Hash {
			t.N = n.seen[i].N + 1
			break
		}
	}
	if len(n.seen) >= 2*remembered {
		n.seen = slices.Delete(n.seen, 0, len(n.seen)-remembered)
	}
	n.seen = append(n.seen, t)
	if t.N > 0 {
		sum = sha256.Sum256(binary.BigEndian.AppendUint32(sum[:], uint32(t.N)))
	}
	return eventID(sum)
}

// missed returns the id of an event of ours, about the webhook's gap of that number.
func (n *naming) missed(webhook, what string, number uint64) string {
	b := append([]byte("afterlogin/webhook-missed/1\x00"), n.installation[:]...)
	b = append(append(append(b, webhook...), 0), what...)
	return eventID(sha256.Sum256(binary.BigEndian.AppendUint64(append(b, 0), number)))
}

func eventID(sum [32]byte) string { return "evt_" + base64.RawURLEncoding.EncodeToString(sum[:18]) }
