package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// scope names this program's spans.
const scope = "github.com/afterlogin/afterlogin"

// tracing makes spans and sends them. Nil makes none.
type tracing struct {
	provider *sdktrace.TracerProvider
	client   *client
}

// openTracing returns what the environment asks for, nil if it asks for nothing. Besides the variables that are looked at
// here and in newClient, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_BSP_… and OTEL_SPAN_… are the SDK's.
func openTracing(o Options, log *slog.Logger) (*tracing, error) {
	if o.Getenv == nil || !wanted(o.Getenv) {
		return nil, nil
	}
	if e := o.Getenv("OTEL_TRACES_EXPORTER"); e != "" && e != "otlp" {
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER: there is otlp and none, and not %.40q", e)
	}
	c, err := newClient(o.Getenv, log)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(context.Background(), c)
	if err != nil {
		return nil, err
	}
	res, err := describe(o)
	if err != nil {
		return nil, err
	}
	return &tracing{
		client:   c,
		provider: sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res)),
	}, nil
}

// wanted reports whether the environment asks for traces: by naming where to send them, or by naming an exporter.
func wanted(getenv func(string) string) bool {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	for _, name := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if getenv(name) != "" {
			return true
		}
	}
	return false
}

// describe says whose spans these are: what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say, over the program's own
// name and version.
func describe(o Options) (*resource.Resource, error) {
	attrs := []attribute.KeyValue{attribute.String("service.name", "afterlogin")}
	if o.Version != "" {
		attrs = append(attrs, attribute.String("service.version", o.Version))
	}
	for pair := range strings.SplitSeq(o.Getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, err := keyValue(pair)
		if err != nil {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
		}
		attrs = append(attrs, attribute.String(name, value))
	}
	if name := o.Getenv("OTEL_SERVICE_NAME"); name != "" {
		attrs = append(attrs, attribute.String("service.name", name))
	}
	return resource.NewSchemaless(attrs...), nil // of two with one name the last one counts
}

func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return noop.Tracer{}
	}
	return t.provider.Tracer(scope)
}

// close sends what is left, for a bounded time.
func (t *tracing) close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	t.client.stopping.Store(true)
	err := t.provider.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // what could not be sent is lost, which nobody should fail for
	}
	return err
}
