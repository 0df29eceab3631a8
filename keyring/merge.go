package keyring

import (
	"fmt"
	"slices"
	"time"
)

// What a ring that follows a record does when the two contradict each other. The store is right, since it is what all
// nodes see, with one exception: what was distrusted, dead or retired does not come back. A store that lost such a change
// in a failover or a restore is told of it again, by whoever knows.

// merge returns what the sealed text holds, as a successor of what the ring has: a key keeps its place in memory, and one
// that was distrusted, dead or retired does not come back, whatever somebody wrote into the store. ahead says that
// something of the ring is not in the text, and must be, for all nodes to have one ring: a key that was taken away, or
// the one that came in its place, where the text has no other.
func (r *Ring) merge(sealed []byte) (c contents, ahead bool, err error) {
	n, err := parse(sealed, r.master[:])
	if err != nil {
		return contents{}, false, err
	}
	if n.installation != r.installation {
		return contents{}, false, fmt.Errorf("%w: restart this node if that is meant", ErrOtherRing)
	}
	// As they are now, both: the next key of the text may have been active for long.
	now := r.now()
	had, c := r.contents().settle(now), n.contents().settle(now)
	for p, list := range c.keys {
		for i := range list {
			ahead = list[i].follow(had.keys[p]) || ahead
		}
		if slices.ContainsFunc(list, func(k Key) bool { return k.State == Active }) {
			continue
		}
		ahead = true
		c.keys[p] = withActive(list, had.keys[p])
		if err := checkKeys(p, c.keys[p]); err != nil {
			return contents{}, false, fmt.Errorf("%w: %w", ErrRolledBack, err)
		}
	}
	for i, k := range c.signing {
		j := had.signing.index(k.ID)
		if j < 0 {
			continue
		}
		if old := had.signing[j]; old.Retired && !k.Retired {
			k.Retired, k.Until, k.key, ahead = true, old.Until, nil, true
		}
		k.public = had.signing[j].public
		c.signing[i] = k
	}
	for _, k := range had.signing {
		if k.published(now) && c.signing.index(k.ID) < 0 && c.signing.newest(k.Algorithm) < 0 {
			c.signing, ahead = append(c.signing, k), true
		}
	}
	return c, ahead, nil
}

// follow makes the key the successor of the same among those that the ring had, and reports whether it knew worse of it.
func (k *Key) follow(had []Key) (worse bool) {
	for _, old := range had {
		if old.ID != k.ID || *old.secret != *k.secret {
			continue
		}
		k.secret = old.secret
		if old.State.rank() > k.State.rank() && old.State.rank() >= Distrusted.rank() {
			k.State, k.From, worse = old.State, time.Time{}, true
		}
	}
	return worse
}

// withActive returns a list without an active key with one. The next key, if there is one, is known to all nodes that
// have read it, and begins early. Otherwise the store has lost the active one, and gets it back.
func withActive(list, had []Key) []Key {
	last := &list[len(list)-1]
	if last.State == Next {
		last.State, last.From = Active, time.Time{}
		return list
	}
	for _, k := range had {
		if k.ID > last.ID {
			list = append(list, k)
		}
	}
	return list
}
