package gateway_test

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/afterlogin/afterlogin/store"
)

// faultyStore is a real store with bad days: nothing happens while it fails. (storetest.Faulty, which can do more, is of a
// module that this one must not need.)
type faultyStore struct {
	store.Store
	fault atomic.Int32
}

const (
	healthy    = iota
	allFails   // every call
	writesFail // every Apply
)

var errFaulty = errors.New("the disk is on fire")

func (f *faultyStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if f.fault.Load() == allFails {
		return nil, errFaulty
	}
	return f.Store.Get(ctx, ids...)
}

func (f *faultyStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if f.fault.Load() != healthy {
		return errFaulty
	}
	return f.Store.Apply(ctx, root, ops...)
}

func (f *faultyStore) Touch(ctx context.Context, touches []store.Touch) error {
	if f.fault.Load() != healthy {
		return errFaulty
	}
	return f.Store.Touch(ctx, touches)
}
