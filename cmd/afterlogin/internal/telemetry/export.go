package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Limits of sending.
const (
	sendTimeout = 10 * time.Second // OTEL_EXPORTER_OTLP_TIMEOUT's default
	sendTries   = 4
	sendPause   = time.Second // before the second try; then twice as long each time
	sendPauses  = 10 * time.Second
	maxReply    = 64 << 10
	complain    = time.Minute // how often a failure is logged at most
)

// client sends spans by OTLP over HTTP, as protobuf. It is written here since the one of the SDK brings gRPC into the
// program, which nothing else needs; what is on the wire is the same.
type client struct {
	http    *http.Client
	url     string
	host    string // for the log: the address may have a password in it
	headers http.Header
	timeout time.Duration
	gzip    bool
	log     *slog.Logger

	stopping     atomic.Bool
	sent, failed atomic.Uint64
	complained   atomic.Int64 // when, in nanoseconds since 1970
}

// newClient reads the environment: OTEL_EXPORTER_OTLP_{ENDPOINT,HEADERS,TIMEOUT,COMPRESSION,PROTOCOL,CERTIFICATE,
// CLIENT_CERTIFICATE,CLIENT_KEY}, each also as OTEL_EXPORTER_OTLP_TRACES_…, which comes first. An error repeats no value
// that could be secret.
func newClient(getenv func(string) string, log *slog.Logger) (*client, error) {
	get := func(name string) (value, variable string) {
		for _, v := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
			if s := strings.TrimSpace(getenv(v)); s != "" {
				return s, v
			}
		}
		return "", "OTEL_EXPORTER_OTLP_" + name
	}
	c := &client{log: log, headers: http.Header{"Content-Type": {"application/x-protobuf"}}, timeout: sendTimeout}
	if p, name := get("PROTOCOL"); p != "" && p != "http/protobuf" {
		return nil, fmt.Errorf("%s: there is http/protobuf, and not %.40q", name, p)
	}
	endpoint, name := get("ENDPOINT")
	whole := strings.Contains(name, "TRACES")
	if endpoint == "" {
		endpoint = "http://localhost:4318"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%s: want an address as http://localhost:4318", name)
	}
	if !whole {
		u = u.JoinPath("v1", "traces")
	}
	c.url, c.host = u.String(), u.Host
	headers, name := get("HEADERS")
	for pair := range strings.SplitSeq(headers, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		k, v, err := keyValue(pair)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c.headers.Set(k, v)
	}
	if text, name := get("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms <= 0 || ms > 600_000 {
			return nil, fmt.Errorf("%s: want milliseconds, 1 to 600000", name)
		}
		c.timeout = time.Duration(ms) * time.Millisecond
	}
	switch how, name := get("COMPRESSION"); how {
	case "", "none":
	case "gzip":
		c.gzip = true
		c.headers.Set("Content-Encoding", "gzip")
	default:
		return nil, fmt.Errorf("%s: there is gzip and none, and not %.40q", name, how)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = clientTLS(get); err != nil {
		return nil, err
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the headers may hold a key
	}}
	return c, nil
}

// clientTLS returns what the environment says of certificates, nil for nothing.
func clientTLS(get func(string) (value, variable string)) (*tls.Config, error) {
	var c tls.Config
	if file, name := get("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: there is no certificate in %s", name, file)
		}
	}
	cert, name := get("CLIENT_CERTIFICATE")
	key, _ := get("CLIENT_KEY")
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s and …_CLIENT_KEY: %w", name, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return &c, nil
}

// keyValue reads name=value, with the value escaped as in a URL. The error does not repeat it.
func keyValue(pair string) (name, value string, err error) {
	name, value, ok := strings.Cut(pair, "=")
	name = strings.TrimSpace(name)
	if !ok || name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r) }) {
		return "", "", errors.New("want name=value,name=value")
	}
	if value, err = url.PathUnescape(strings.TrimSpace(value)); err != nil || strings.ContainsAny(value, "\r\n\x00") {
		return "", "", fmt.Errorf("the value of %.40s cannot be read: escape it as in a URL", name)
	}
	return name, value, nil
}

// Start implements otlptrace.Client.
func (c *client) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. It never fails: what cannot be sent is counted and dropped, and said in the log
// now and then.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	if len(spans) == 0 {
		return nil
	}
	err := c.send(ctx, spans)
	if err == nil {
		c.sent.Add(1)
		return nil
	}
	c.failed.Add(1)
	now := time.Now().UnixNano()
	if last := c.complained.Load(); now-last > int64(complain) && c.complained.CompareAndSwap(last, now) {
		c.log.Warn("spans could not be sent", "to", c.host, "err", err)
	}
	return nil
}

func (c *client) send(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire it is an ExportTraceServiceRequest, whose one field has the number and type of this one's.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	if c.gzip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(body)
		if err := z.Close(); err != nil {
			return err
		}
		body = b.Bytes()
	}
	pause := sendPause
	for try := 1; ; try++ {
		again, wait, err := c.post(ctx, body)
		if err == nil || !again || try == sendTries || c.stopping.Load() && try == 2 { // who stops does not wait for long
			return err
		}
		t := time.NewTimer(max(pause, min(wait, sendPauses)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
		pause *= 2
	}
}

// post sends once. again says that the failure may pass, and wait for how long the receiver wants to be left alone.
func (c *client) post(ctx context.Context, body []byte) (again bool, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return false, 0, errors.New("the address is not good") // the error would repeat it
	}
	r.Header = c.headers.Clone()
	resp, err := c.http.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return true, 0, err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxReply))
	if resp.StatusCode/100 == 2 {
		return false, 0, nil
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, time.Duration(min(max(seconds, 0), 60)) * time.Second, fmt.Errorf("the answer was %d", resp.StatusCode)
}
