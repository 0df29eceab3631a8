package roster

import (
	"sync"

	"github.com/afterlogin/afterlogin"
)

// maxDirty bounds what waits to be looked up. If there is more, everything is looked up: a scan is cheaper.
const maxDirty = 100_000

// dirty are roots of which something was heard that only the store can tell in full.
type dirty struct {
	mu   sync.Mutex
	ids  map[rootID]afterlogin.Kind
	lost bool // there was no room: a scan is needed
	wake chan struct{}
}

func (d *dirty) add(id rootID, kind afterlogin.Kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ids == nil {
		d.ids = make(map[rootID]afterlogin.Kind)
	}
	if _, has := d.ids[id]; !has && len(d.ids) >= maxDirty {
		d.lost = true
		return
	}
	d.ids[id] = kind
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// take returns up to n of them, and whether some were lost since the last take.
func (d *dirty) take(n int) (ids []afterlogin.SessionID, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, kind := range d.ids {
		if len(ids) == n {
			break
		}
		ids = append(ids, handle(kind, &id))
		delete(d.ids, id)
	}
	if len(d.ids) == 0 {
		d.ids = nil // a map does not shrink
	}
	lost, d.lost = d.lost, false
	return ids, lost
}

func (d *dirty) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ids)
}
