package users

import (
	"net/netip"
	"sync"
)

// How many passwords of one user, and from one address, are in the hasher or wait for it at once. Right passwords are not
// throttled: without a bound somebody with one account could keep everybody else waiting for as long as he likes.
const (
	// perName is more than the tabs of one person. Browsers that the user has signed in with before have as many for
	// themselves.
	perName = 4
	// perAddress is no more than half of those that wait, so that one address never has all of them. Many people may share
	// one.
	perAddress = waitingFor
)

// lanes counts who is on the way to the hasher.
type lanes struct {
	mu sync.Mutex
	on map[lane]int
}

// A lane is a name, or, with no name, an address as the throttle counts it.
type lane struct {
	name  string
	known bool // the browser is
	from  netip.Prefix
}

func (l lane) most() int {
	if l.name != "" {
		return perName
	}
	return perAddress
}

// enter takes a place in each of the lanes, which leave gives back, and reports whether there was one in all.
func (l *lanes) enter(of ...lane) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range of {
		if l.on[x] >= x.most() {
			return false
		}
	}
	if l.on == nil {
		l.on = make(map[lane]int)
	}
	for _, x := range of {
		l.on[x]++
	}
	return true
}

func (l *lanes) leave(of ...lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range of {
		if l.on[x]--; l.on[x] == 0 {
			delete(l.on, x)
		}
	}
}
