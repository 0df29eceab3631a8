package oauth

import (
	"context"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

const (
	// knownFor is for how long a client is not read again: as long as the authority's lease.
	knownFor = time.Second
	maxKnown = 10_000
)

// known keeps decoded clients for a moment, since every introspection needs one.
type known struct {
	authority *afterlogin.Authority
	now       func() time.Time

	mu      sync.RWMutex
	changes uint64 // how often something was forgotten; what was read before that is not kept
	clients map[string]knownClient
}

type knownClient struct {
	client *client
	read   time.Time // before it was read
}

func newKnown(a *afterlogin.Authority, now func() time.Time) *known {
	return &known{authority: a, now: now, clients: make(map[string]knownClient)}
}

// within reports whether what was read so long ago, by the monotonic clock and by the other one, may still be used. Both
// have to say so: the first stands still while the machine sleeps, and the other one can be set.
func within(age, wall time.Duration) bool {
	return 0 <= age && age < knownFor && 0 <= wall && wall < knownFor
}

// forget has every client read again.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	clear(k.clients)
}

// get returns the client. The error is afterlogin.ErrNoClient, ErrUnavailable, also if the store takes longer than
// requestTimeout, or, for settings that this version cannot read, another.
func (k *known) get(ctx context.Context, id string) (*client, error) {
	now := k.now()
	k.mu.RLock()
	c, ok := k.clients[id]
	changes := k.changes
	k.mu.RUnlock()
	if ok && within(now.Sub(c.read), now.Round(0).Sub(c.read.Round(0))) {
		return c.client, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reg, err := k.authority.Client(ctx, 0, id)
	if err != nil {
		return nil, err
	}
	settings, err := clients.Parse(reg.Settings)
	if err != nil {
		return nil, err
	}
	if settings.Disabled {
		return nil, afterlogin.ErrNoClient
	}
	made := &client{id: id, reg: reg, settings: settings, sums: settings.Sums()}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.changes == changes {
		if len(k.clients) >= maxKnown {
			clear(k.clients)
		}
		k.clients[id] = knownClient{made, now}
	}
	return made, nil
}
