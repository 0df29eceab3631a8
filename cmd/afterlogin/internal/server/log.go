package server

import (
	"context"
	"io"
	"log/slog"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/telemetry"
)

// NewLogger returns a logger for people or, with asJSON, for machines. Whatever looks like a token is not written: no
// code of ours logs one, and this is for what a caller puts where nobody expects it. In the context of a request that is
// traced, a line names the trace (trace_id).
func NewLogger(w io.Writer, level string, asJSON bool) *slog.Logger {
	o := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindString:
			a.Value = slog.StringValue(api.Redact(a.Value.String()))
		case slog.KindAny:
			if err, ok := a.Value.Any().(error); ok {
				a.Value = slog.StringValue(api.Redact(err.Error()))
			}
		}
		return a
	}}
	var l slog.Level
	if l.UnmarshalText([]byte(level)) == nil { // the configuration has checked it
		o.Level = l
	}
	if asJSON {
		return slog.New(telemetry.LogHandler(slog.NewJSONHandler(w, o)))
	}
	return slog.New(telemetry.LogHandler(slog.NewTextHandler(w, o)))
}

// logEvents returns an observer that logs the authority's events: what points to a theft or to a loss as a warning, what
// ends something as information, and everyday events for debugging.
func logEvents(log *slog.Logger) func(afterlogin.Event) {
	return func(e afterlogin.Event) {
		level := slog.LevelDebug
		switch e.Type {
		case afterlogin.EventReuse, afterlogin.EventKeyReuse, afterlogin.EventGrantReuse, afterlogin.EventCodeReplayed, afterlogin.EventRolledBack,
			afterlogin.EventInURL:
			level = slog.LevelWarn
		case afterlogin.EventRevoked, afterlogin.EventKeyRevoked, afterlogin.EventKeyCreated, afterlogin.EventSubject,
			afterlogin.EventClientCreated, afterlogin.EventClientChanged, afterlogin.EventClientRevoked,
			afterlogin.EventFrozen, afterlogin.EventThawed, afterlogin.EventKeyFrozen, afterlogin.EventKeyThawed, afterlogin.EventGrantFrozen, afterlogin.EventGrantThawed:
			level = slog.LevelInfo
		}
		attrs := []any{"session", e.Session, "subject", e.Subject, "reason", e.Reason, "detail", e.Detail}
		if e.Actor != "" {
			attrs = append(attrs, "actor", e.Actor)
		}
		log.Log(context.Background(), level, e.Type, attrs...)
	}
}
