package account

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
)

// Limits of the page.
const (
	maxPages  = 10   // how many pages of what is live are looked through, of 5,000 records each
	maxLooked = 5000 // how many records are looked at for what has ended
	maxShown  = 100  // of each part
	maxEnded  = 20
	// endedFor is for how long it is shown that something has ended, if the authority still knows.
	endedFor = 28 * 24 * time.Hour
	// rounding keeps the page from telling when exactly somebody did something.
	rounding = 5 * time.Minute
)

// What an entry is.
const (
	kindDevice = "device"
	kindApp    = "app"
	kindAPIKey = "api_key"
)

// An entry is one line of the page: a device that somebody is signed in on, an app that acts for them, or an API key.
type entry struct {
	id     afterlogin.SessionID
	kind   string
	here   bool
	held   bool
	name   string        // of an app or a key
	device device.Device // of a device; of an app where it was let in
	place  string
	net    geo.Network

	since      time.Time
	seen       time.Time // rounded
	until      time.Time // of a key; zero: it does not end
	remembered bool
	methods    []string
	provider   string
	scopes     []string // of an app, a key

	ended time.Time
	why   afterlogin.Reason
}

// An overview is all that the page shows of a person.
type overview struct {
	devices, apps, keys, ended []entry
	more                       bool // there is more than is shown
	places                     bool // at least one place is
}

// overview lists what belongs to the person of the session. Everything here is of its subject and its tenant: the query
// says so.
func (v *visit) overview(ctx context.Context, here *afterlogin.Session) (*overview, error) {
	var o overview
	now := v.a.now()
	places := make(map[netip.Addr]string) // of this page: the same address comes often
	found := false
	q := afterlogin.Query{Tenant: here.Tenant, Subject: here.Subject, Limit: 1000}
	for range maxPages { // what is live goes first, and all of it: those that ended are passed over up to a bound
		page, err := v.a.o.Authority.Page(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range page.Sessions {
			if kindOf(s) == "" {
				continue
			}
			e := v.entry(s, here, places)
			found = found || e.here
			switch e.kind {
			case kindApp:
				o.apps = append(o.apps, e)
			case kindAPIKey:
				o.keys = append(o.keys, e)
			default:
				o.devices = append(o.devices, e)
			}
		}
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	o.more = q.After != ""
	looked := 0
	for s, err := range v.a.o.Authority.Sessions(ctx, afterlogin.Query{Tenant: here.Tenant, Subject: here.Subject, Ended: true}) {
		if err != nil {
			return nil, err
		}
		if looked++; looked > maxLooked {
			break
		}
		if kindOf(s) != "" && !s.Ended.IsZero() && now.Sub(s.Ended) < endedFor && s.Why != afterlogin.ReasonUnreadable {
			o.ended = append(o.ended, v.entry(s, here, places))
		}
	}
	if !found { // behind the limit
		root, err := v.a.o.Authority.Session(ctx, here.Root)
		if err != nil {
			return nil, err
		}
		o.devices = append(o.devices, v.entry(root, here, places))
	}
	recent := func(x, y entry) int {
		if x.here != y.here {
			if x.here {
				return -1
			}
			return 1
		}
		if c := y.seen.Compare(x.seen); c != 0 {
			return c
		}
		return y.since.Compare(x.since)
	}
	slices.SortStableFunc(o.devices, recent)
	slices.SortStableFunc(o.apps, recent)
	slices.SortStableFunc(o.keys, recent)
	slices.SortStableFunc(o.ended, func(x, y entry) int { return y.ended.Compare(x.ended) })
	cut := func(all []entry, most int) []entry {
		o.more = o.more || len(all) > most && most == maxShown
		return all[:min(len(all), most)]
	}
	o.devices, o.apps, o.keys, o.ended = cut(o.devices, maxShown), cut(o.apps, maxShown), cut(o.keys, maxShown), cut(o.ended, maxEnded)
	for _, part := range [][]entry{o.devices, o.apps, o.ended} {
		o.places = o.places || slices.ContainsFunc(part, func(e entry) bool { return e.place != "" })
	}
	return &o, nil
}

// kindOf says what the session is on the page, "" if it is not there. What lives below something else is part of that, and
// ends with it: a session that was handed over to another host, whose use counts as one of its device, and an app that
// acts only while its person is signed in.
func kindOf(s *afterlogin.Session) string {
	switch {
	case s.ID != s.Root:
		return ""
	case s.Kind == afterlogin.KindSession:
		return kindDevice
	case s.Kind == afterlogin.KindRefresh:
		return kindApp
	case s.Kind == afterlogin.KindAPIKey:
		return kindAPIKey
	}
	return ""
}

func (v *visit) entry(s, here *afterlogin.Session, places map[netip.Addr]string) entry {
	e := entry{
		id: s.ID, kind: kindOf(s), here: s.ID == here.Root, held: s.Frozen(), name: s.Name,
		since: s.Created, seen: round(s.LastSeen), until: s.Absolute, remembered: s.Persistent, ended: s.Ended, why: s.Why,
	}
	switch e.kind {
	case kindDevice:
		e.methods = s.Auth.AMR()
		if id, _, ok := strings.Cut(s.Subject, ":"); ok {
			e.provider = v.a.o.Providers[id]
		}
	case kindApp, kindAPIKey:
		e.scopes = slices.DeleteFunc(slices.Clone(s.Scopes), func(scope string) bool { return scope == "offline_access" })
		if e.name == "" {
			e.name = s.Client
		}
	}
	if e.kind == kindAPIKey {
		return e // a machine's: where it was made says nothing
	}
	addr := s.Device.Addr.Unmap().WithZone("")
	e.device, e.net = device.Describe(s.Device.UserAgent), geo.NetworkOf(addr)
	place, known := places[addr]
	if !known {
		place = v.a.o.Places.Place(addr, v.words["lang"])
		places[addr] = place
	}
	e.place = place
	return e
}

// round cuts a time to five minutes.
func round(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(rounding)
}

// own returns what the handle names, if it is one of the person's own that the page shows. Whatever belongs to somebody
// else is as if it were not there. The handle of something that lives on a device, such as a session that was handed
// over, is not shown, and names nothing.
func (a *Account) own(ctx context.Context, here *afterlogin.Session, id afterlogin.SessionID) (*afterlogin.Session, error) {
	s, err := a.o.Authority.Session(ctx, id)
	if errors.Is(err, afterlogin.ErrBadSessionID) {
		return nil, afterlogin.ErrNoSession
	}
	if err != nil {
		return nil, err
	}
	if s.Subject != here.Subject || s.Tenant != here.Tenant || kindOf(s) == "" {
		return nil, afterlogin.ErrNoSession
	}
	return s, nil
}
