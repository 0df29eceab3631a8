package roster

import (
	"cmp"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// countsFor is how long Counts gives the same answer.
const countsFor = time.Second

// mostClients is how many clients Counts names.
const mostClients = 50

// Counts are how many there are at a moment, of this tenant.
type Counts struct {
	At       time.Time
	Live     int // good, and not frozen
	Frozen   int
	Signed   int // of the live ones, those of somebody who has signed in
	Subjects int // who has at least one live session or grant
	Kinds    map[afterlogin.Kind]int
	Policies map[string]int
	Clients  []ClientCount // the largest first, at most 50; those without a client are not among them
	Progress Progress
}

// A ClientCount says how many are of one OAuth client.
type ClientCount struct {
	Client string
	Live   int
}

// Counts returns how many sessions there are: exact as of Progress.AsOf, with what time has ended since taken off. It is
// false as long as there is no index. The answer is shared, and up to a second old.
func (r *Roster) Counts() (*Counts, bool) {
	r.need()
	r.countMu.Lock()
	defer r.countMu.Unlock()
	now := r.now()
	if r.counted != nil && now.Sub(r.countAt) < countsFor && !now.Before(r.countAt) {
		return r.counted, true
	}
	c, ok := r.count(now)
	if !ok {
		return nil, false
	}
	r.counted, r.countAt = c, now
	return c, true
}

func (r *Roster) count(now time.Time) (*Counts, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.state != Ready {
		return nil, false
	}
	t, ms := r.table, now.UnixMilli()
	var kinds [256]int
	policies, clients := make([]int, len(t.policy)), make([]int, len(t.clients.texts))
	c := &Counts{At: now, Kinds: make(map[afterlogin.Kind]int), Policies: make(map[string]int), Progress: r.progress()}
	for _, chunk := range t.chunks {
		for i := range chunk {
			row := &chunk[i]
			if row.flags&taken == 0 {
				continue
			}
			if ended, _, _ := t.standing(row, ms); ended {
				continue
			}
			if row.flags&frozen != 0 {
				c.Frozen++
				continue
			}
			c.Live++
			if row.subject != noName {
				c.Signed++
			}
			kinds[row.kind]++
			if row.policy != unknown {
				policies[row.policy]++
			}
			if row.client != unknown && row.client != noWord {
				clients[row.client]++
			}
		}
	}
	for k, n := range kinds {
		if n > 0 {
			c.Kinds[afterlogin.Kind(k)] = n
		}
	}
	for code, n := range policies {
		if n > 0 {
			c.Policies[t.policy[code]] += n
		}
	}
	for code, n := range clients {
		if n > 0 {
			c.Clients = append(c.Clients, ClientCount{t.clients.texts[code], n})
		}
	}
	slices.SortFunc(c.Clients, func(a, b ClientCount) int {
		return cmp.Or(cmp.Compare(b.Live, a.Live), cmp.Compare(a.Client, b.Client))
	})
	c.Clients = c.Clients[:min(len(c.Clients), mostClients)]
	c.Subjects = t.subjectsAlive(ms)
	return c, true
}

// subjectsAlive counts the subjects that have something live other than API keys.
func (t *table) subjectsAlive(now int64) (n int) {
	for _, chunk := range t.chunks {
	rows:
		for i := range chunk {
			row := &chunk[i]
			if row.flags&taken == 0 || row.subject == noName || row.prev != noRow { // the first of each subject stands for it
				continue
			}
			for at := row; ; at = t.at(at.next) {
				if afterlogin.Kind(at.kind) != afterlogin.KindAPIKey && at.flags&frozen == 0 {
					if ended, _, _ := t.standing(at, now); !ended {
						n++
						continue rows
					}
				}
				if at.next == noRow {
					continue rows
				}
			}
		}
	}
	return n
}
