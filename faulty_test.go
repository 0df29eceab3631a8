package afterlogin_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// faultyStore fails as hook says, once that is set. (Package storetest has a better one, in a module that this one does
// not require.)
type faultyStore struct {
	store.Store
	mu   sync.Mutex
	hook func(storeCall) fault
}

// storeCall is what is about to be done: an Apply or a Get.
type storeCall struct {
	Method string
	Root   store.ID
	Ops    []store.Op
	IDs    []store.ID
}

// fault is the error that a call fails with, before it is done or after.
type fault struct{ Before, After error }

var errFault = errors.New("a fault")

// faultyHouse is a house with such a store.
func faultyHouse(t *testing.T, change ...func(*afterlogin.Config)) (*house, *faultyStore) {
	faulty := &faultyStore{Store: memstore.New()}
	return newHouse(t, append(change, func(c *afterlogin.Config) { c.Store = faulty })...), faulty
}

func (s *faultyStore) SetHook(hook func(storeCall) fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

func (s *faultyStore) of(c storeCall) fault {
	s.mu.Lock()
	hook := s.hook
	s.mu.Unlock()
	if hook == nil {
		return fault{}
	}
	return hook(c)
}

func (s *faultyStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	f := s.of(storeCall{Method: "Apply", Root: root, Ops: ops})
	if f.Before != nil {
		return f.Before
	}
	if err := s.Store.Apply(ctx, root, ops...); err != nil {
		return err
	}
	return f.After
}

func (s *faultyStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	f := s.of(storeCall{Method: "Get", IDs: ids})
	if f.Before != nil {
		return nil, f.Before
	}
	rs, err := s.Store.Get(ctx, ids...)
	return rs, errors.Join(err, f.After)
}
