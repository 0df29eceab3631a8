package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What a receiver may take.
const (
	attemptTimeout = 10 * time.Second
	drainTimeout   = time.Second // for the body, which nobody reads
	maxAnswer      = 64 << 10
	maxHeader      = 32 << 10
)

// How long to wait between attempts.
const (
	firstPause    = time.Second
	longestPause  = 5 * time.Minute
	maxRetryAfter = time.Hour
	maxRefusals   = 5 // attempts at an event that the receiver says is wrong
	// maxFaults is how many answers 5xx an event gets, in three hours or so, before one of those behind it is tried, too,
	// after each: if that one is taken, and this one is refused once more, it is this one that the receiver chokes on.
	maxFaults = 50
	// moreFaults is the same for what comes right behind one that was given up so: what a receiver chokes on often comes in
	// a row.
	moreFaults = 10
	// maxSilent is how many events in a row get no answer before what is as old as they are is given up untried, unheard
	// of them before one is tried again. Else a long outbox would be over before it is through.
	maxSilent = 10
	unheard   = 64
)

// newClients returns what sends to https and to http: no redirects, no proxy from the environment, no cookies, no address
// that is not allowed, little time, and answers of bounded size.
func newClients(a *Allowance, roots *x509.CertPool) (secure, plain *http.Client) {
	client := func(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
		return &http.Client{
			Transport: &http.Transport{
				DialContext:            dial,
				TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				TLSHandshakeTimeout:    attemptTimeout,
				ResponseHeaderTimeout:  attemptTimeout,
				MaxResponseHeaderBytes: maxHeader,
				MaxIdleConns:           2 * Max,
				MaxIdleConnsPerHost:    2,
				IdleConnTimeout:        30 * time.Second,
				DisableCompression:     true,
				ForceAttemptHTTP2:      true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return client(a.dialer(true)), client(a.dialer(false))
}

// An outcome is what became of an attempt.
type outcome struct {
	ok         bool
	gone       bool // 410: the receiver wants nothing any more
	refused    bool // the receiver says that this event is wrong; waiting will hardly help
	status     int  // 0: there was no answer
	err        string
	retryAfter time.Duration
	took       time.Duration
	ended      bool // the attempt was broken off here
}

// errNotTaken is what a trace is told of an attempt that failed.
var errNotTaken = errors.New("the receiver did not take the event")

// attempt sends the event once.
func (w *Webhooks) attempt(ctx context.Context, id string, r *record, i *item) (o outcome) {
	began := time.Now()
	ctx, done := w.span(ctx, "webhook delivery")
	defer func() {
		o.took = time.Since(began)
		if o.ok {
			done(nil)
		} else {
			done(errNotTaken)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	b, err := body(w.issuer, id, i)
	if err != nil {
		return outcome{err: "the event cannot be written: " + clean(err.Error(), maxError-40), refused: true}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL, bytes.NewReader(b))
	if err != nil {
		return outcome{err: "the address cannot be read"}
	}
	now := w.now()
	var signatures []string
	for _, s := range r.secrets(now) {
		signatures = append(signatures, s.sign(i.ID, now, b))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "afterlogin-webhooks/1")
	req.Header.Set("Webhook-Id", i.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", strings.Join(signatures, " "))
	client := w.plain
	if req.URL.Scheme == "https" {
		client = w.secure
	}
	resp, err := client.Do(req)
	if err != nil {
		return outcome{err: reason(err), ended: errors.Is(context.Cause(ctx), context.Canceled)}
	}
	drained := time.AfterFunc(drainTimeout, cancel)
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	drained.Stop()
	resp.Body.Close()
	o = outcome{status: resp.StatusCode}
	switch {
	case resp.StatusCode/100 == 2:
		o.ok = true
		return o
	case resp.StatusCode == http.StatusGone:
		o.gone = true
	case resp.StatusCode/100 == 3:
		o.err = "redirects are not followed"
	case resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode == http.StatusTooEarly, resp.StatusCode == http.StatusTooManyRequests:
	case resp.StatusCode/100 == 4:
		o.refused = true
	}
	if o.err == "" {
		o.err = "the receiver answered " + strconv.Itoa(resp.StatusCode)
	}
	o.retryAfter = retryAfter(resp.Header, now)
	return o
}

// reason says why there was no answer, without the address, whose query can hold what is nobody's business.
func reason(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %v", attemptTimeout)
	case errors.Is(err, errAddress):
		for e := err; e != nil; e = errors.Unwrap(e) {
			if s := e.Error(); strings.HasPrefix(s, errAddress.Error()) {
				return clean(s, maxError)
			}
		}
	}
	return clean("no answer: "+err.Error(), maxError)
}

// retryAfter reads the header, in seconds or as a date (RFC 9110, 10.2.3).
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	d := time.Duration(0)
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}

// pause returns how long to wait after so many failed attempts: doubled each time, and anywhere between half of it and all,
// so that receivers of many webhooks do not get them all at once.
func pause(tries int, o *outcome) time.Duration {
	d := longestPause
	if tries < 10 {
		d = min(d, firstPause<<max(0, tries-1))
	}
	d = d/2 + rand.N(d/2+1)
	return max(d, o.retryAfter)
}
