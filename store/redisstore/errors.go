package redisstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// ErrUnavailable: no server that may answer for the records answers now. Nothing was changed, and the caller may try again.
// The store recovers by itself.
var ErrUnavailable = errors.New("redisstore: unavailable")

// errGone: the node is no longer part of the installation.
var errGone = errors.New("no longer a server of this store")

func unavailable(addr string, err error) error {
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, addr, err)
}

// A refusal is what a server's error reply means.
type refusal int

const (
	refused  refusal = iota // nothing was changed, and trying again at once is of no use
	unclear                 // it may have changed something
	full                    // no room; nothing was changed
	moved                   // the slot is somewhere else
	asking                  // the slot is being moved, and this key of it is there already
	tryAgain                // the slot is being moved, and its keys are in both places
	noScript                // the script is not known
	badPlace                // not a master, or one that has lost its cluster
)

// refusals are the first words of error replies that are given before a script runs.
var refusals = map[string]refusal{
	"OOM": full, "MOVED": moved, "ASK": asking, "TRYAGAIN": tryAgain, "NOSCRIPT": noScript,
	"READONLY": badPlace, "CLUSTERDOWN": badPlace, "MASTERDOWN": badPlace, "LOADING": badPlace,
	"NOREPLICAS": refused, "MISCONF": refused, "BUSY": refused, "NOAUTH": refused, "NOPERM": refused, "WRONGPASS": refused,
	"UNKILLABLE": refused,
}

// classify says what an error means that came instead of a reply, or as one; addr is the place that MOVED and ASK name.
func classify(err error) (r refusal, addr string) {
	re, ok := rueidis.IsRedisErr(err)
	if !ok {
		return unclear, ""
	}
	if to, ok := re.IsMoved(); ok {
		return moved, to
	}
	if to, ok := re.IsAsk(); ok {
		return asking, to
	}
	word, _, _ := strings.Cut(re.Error(), " ")
	r, ok = refusals[word]
	if !ok || strings.Contains(re.Error(), "@user_script") { // in the middle of a script it may come after a change
		return unclear, ""
	}
	return r, ""
}

// outcome makes of an error that a write ended with what the contract asks for.
func outcome(addr string, err error) error {
	switch r, _ := classify(err); r {
	case unclear:
		return fmt.Errorf("%w: %s: %w", store.ErrUnknown, addr, err)
	case full:
		return fmt.Errorf("redisstore: %s: %w", addr, store.ErrFull)
	default:
		return unavailable(addr, err)
	}
}
