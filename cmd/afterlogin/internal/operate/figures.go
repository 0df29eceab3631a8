package operate

import (
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/telemetry"
)

// Figures returns what metrics ask of the desk, for telemetry.Telemetry.Ask. Asking makes no index of sessions: they are
// counted if there is one.
func (d *Desk) Figures() telemetry.Options {
	o := telemetry.Options{
		Ready: d.Pulse.Ready,
		Live: func() telemetry.Live {
			if d.Roster.Progress().State != roster.Ready {
				return telemetry.Live{}
			}
			l := d.live()
			if l == nil {
				return telemetry.Live{}
			}
			return telemetry.Live{Kinds: l.Kinds, Complete: l.Complete}
		},
		Webhooks: func() telemetry.Webhooks {
			s := d.Webhooks.Stats()
			w := telemetry.Webhooks{Queued: s.Waiting, Dead: s.DeadLetters, Tries: s.Deliveries}
			if !s.Oldest.IsZero() {
				w.Lag = max(0, d.now().Sub(s.Oldest))
			}
			return w
		},
	}
	if d.Audit != nil {
		o.Audit = func() telemetry.Audit {
			s := d.Audit.Stats()
			return telemetry.Audit{Lag: s.Lag, Failing: !s.FailingSince.IsZero() || s.Deaf != nil, Entries: s.Seq, Bytes: s.Bytes}
		}
	}
	return o
}

func (d *Desk) now() time.Time {
	if d.o.Now != nil {
		return d.o.Now()
	}
	return time.Now()
}
