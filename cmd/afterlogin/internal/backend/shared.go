package backend

import (
	"context"
	"log/slog"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pgstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
)

// The stores that servers share tell of each other's changes: without that the cache would say yes to what another server
// has revoked.
var (
	_ store.Shared = (*redisstore.Store)(nil)
	_ store.Shared = (*pgstore.Store)(nil)
)

func openRedis(ctx context.Context, address string, log *slog.Logger) (Backend, error) {
	s, err := redisstore.Open(ctx, address, redisstore.Options{Logger: log})
	if err != nil {
		return nil, err // and not a nil *Store in an interface
	}
	return s, nil
}

func openPostgres(ctx context.Context, address string, log *slog.Logger) (Backend, error) {
	s, err := pgstore.Open(ctx, address, pgstore.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	return s, nil
}
