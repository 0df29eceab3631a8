package server

import (
	"context"
	"io"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
)

// backup writes a backup of the store while it is in use.
func (s *Server) backup(ctx context.Context, w io.Writer) error {
	sealed, err := s.data.keys.Sealed()
	if err != nil {
		return err
	}
	where, _, shared := strings.Cut(s.data.name, "://")
	if !shared {
		where = "embedded"
	}
	b := transfer.Backup{From: s.data.store, Keys: sealed, Header: transfer.Header{Program: "afterlogin serve", Store: where}, Apart: transfer.IsKeys}
	_, err = b.Write(ctx, w)
	return err
}
