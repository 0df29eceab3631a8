package site

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Fault says why a request has failed, in words that have nothing of the answer in them but the names in a certificate:
// errors of net/http quote headers, in which there may be a token.
func Fault(err error) string {
	var certificate *tls.CertificateVerificationError
	var name *net.DNSError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var timeout net.Error
	var number syscall.Errno
	var op *net.OpError
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err
	}
	switch {
	case errors.As(err, &certificate):
		return "its certificate is bad: " + Clip(Printable(certificate.Err.Error()), 200)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS there"
	case errors.As(err, &alert):
		return "it refused the TLS connection: " + alert.Error()
	case errors.As(err, &name) && name.IsNotFound:
		return "its name is not known"
	case errors.As(err, &name):
		return "its name could not be looked up"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it did not answer in time"
	case errors.As(err, &number):
		return number.Error() // the system's own words
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection"
	case errors.As(err, &op) && op.Op == "remote error":
		return "it refused the TLS connection"
	case err != nil && strings.HasPrefix(err.Error(), "tls: "):
		return "no TLS connection could be made"
	}
	return "its answer cannot be read"
}
