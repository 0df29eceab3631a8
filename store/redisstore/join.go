package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/afterlogin/afterlogin/store"
)

// A place is the end of a group's streams.
type place struct{ changes, events string }

// join finds the end of a group's change log and events, and makes them if they are not there.
func (s *Store) join(ctx context.Context, g int) (place, error) {
	reply, err := s.write(ctx, g, joinScript, []string{s.keys.changes(g), s.keys.events(g), s.keys.layout(g)}, []string{layout})
	if err != nil && !errors.Is(err, store.ErrUnconfirmed) {
		return place{}, err
	}
	f := strings.Split(reply, " ")
	if f[0] != layout {
		return place{}, fmt.Errorf("%w: the server keeps records in layout %q, this version of the program knows %s: "+
			"use the version that wrote them, or empty the server", errLayout, f[0], layout)
	}
	if len(f) != 3 {
		return place{}, errShape
	}
	return place{f[1], f[2]}, nil
}

// joinAll joins groups at the same time, so that they share pipelines.
func (s *Store) joinAll(ctx context.Context, gs []int) ([]place, error) {
	places, errs := make([]place, len(gs)), make([]error, len(gs))
	var wg sync.WaitGroup
	for i, g := range gs {
		wg.Go(func() { places[i], errs[i] = s.join(ctx, g) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return places, nil
}

var errLayout = errors.New("redisstore: unknown layout")
