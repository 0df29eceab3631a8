package pgstore

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that mean something here.
const (
	codeFault          = "AL001" // of ours, see apply1
	codeCheck          = "23514" // also: no partition for a row
	codeReadOnly       = "25006"
	codeSerialization  = "40001"
	codeDeadlock       = "40P01"
	codeUndefinedTable = "42P01"
	codeDiskFull       = "53100"
	codeAdminShutdown  = "57P01"
	codeCrashShutdown  = "57P02"
	codeStarting       = "57P03"
)

// serverError returns the error that the server answered, nil if it is another.
func serverError(err error) *pgconn.PgError {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e
	}
	return nil
}

func hasCode(err error, codes ...string) bool {
	e := serverError(err)
	if e == nil {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// isDead reports whether the connection is gone, or was ended by the server.
func isDead(err error) bool {
	var n *net.OpError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case hasCode(err, codeAdminShutdown, codeCrashShutdown):
		return true
	case serverError(err) != nil:
		return false
	}
	return pgconn.SafeToRetry(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &n)
}

// isOpen reports whether a statement that was sent, and failed so, may have been committed all the same. An error of
// the statement itself ends its transaction. Anything else, the end of the connection above all, says nothing.
func isOpen(err error) bool {
	if pgconn.SafeToRetry(err) {
		return false
	}
	e := serverError(err)
	return e == nil || e.SeverityUnlocalized != "ERROR"
}

// isNoPartition reports whether a row found no partition to stand in.
func isNoPartition(err error) bool {
	e := serverError(err)
	return e != nil && e.Code == codeCheck && e.ConstraintName == "" && strings.HasPrefix(e.TableName, "records")
}
