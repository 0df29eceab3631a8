package afterlogin

import (
	"context"

	"github.com/afterlogin/afterlogin/store"
)

// PurgeNow is the janitor's work, for a test whose clock has jumped.
func PurgeNow(a *Authority) { a.purge(context.Background(), a.now()) }

// Signed returns what a stream says of an event that is written with the context: its detail, and who caused it.
func Signed(ctx context.Context, op store.Op) (detail, actor string) {
	ops := []store.Op{op}
	signed(ctx, ops)
	e := newEvent(ops[0].Event)
	return e.Detail, e.Actor
}
