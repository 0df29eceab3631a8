package telemetry

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// A Family is a metric with all its series.
type Family struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Labels []string
	Help   string
	// When says when the family is there, for the page: "there are webhooks". Empty: always.
	When string
}

// Families returns all of ours, in the order of the page.
func Families() []Family { return slices.Clone(families) }

// families are all of them, in the order of docs/metrics.md, whose table is made from this.
var families = []Family{
	{"ready", "gauge", nil, "1 if requests should be sent here, as /readyz said a few seconds ago at most; 0 if not.", ""},
	{"build_info", "gauge", []string{"version"}, "Always 1; the version is in the label.", ""},

	{"validations_total", "counter", []string{"outcome"}, "Validations of tokens: valid, refused, unavailable (not known, since the store did not answer), canceled (not known, since the caller hung up within a second) or limited (an API key used too often).", ""},
	{"refusals_total", "counter", []string{"reason"}, "Tokens that were refused, by the reason: of validations, and of whatever else is done with tokens.", ""},
	{"validate_seconds", "histogram", []string{"via"}, "How long requests took that ask whether a token is good: api (/v1/validate), forward_auth or introspect.", ""},
	{"forward_auth_total", "counter", []string{"outcome"}, "Answers to proxies: yes, sign_in (the person is sent to sign in), no, limited, bad (the question cannot be understood) or unavailable.", ""},
	{"grace_total", "counter", nil, "Answers to tokens that had been replaced a moment before, within their grace.", ""},
	{"forgiven_total", "counter", nil, "Replaced tokens that were good once more, since the answer with their successor had been lost.", ""},
	{"reuse_total", "counter", []string{"kind"}, "Tokens that were used when they had been replaced for long: copies, and so perhaps thefts.", ""},
	{"issued_total", "counter", []string{"kind"}, "Credentials that were made.", ""},
	{"renewed_total", "counter", []string{"kind"}, "Tokens that were replaced by their successors.", ""},
	{"step_ups_total", "counter", nil, "Sessions whose person proved once more who they are.", ""},
	{"revocations_total", "counter", []string{"scope"}, "What was ended on purpose: one credential, sessions (all of somebody), everything (API keys too), others (all but one), or origin (since the session it came from was ended with it).", ""},
	{"sessions_active", "gauge", []string{"kind"}, "Live credentials on the whole store, by kind.", "the server has an index of them: from the first search or look at the console on"},
	{"sessions_counted", "gauge", nil, "1 if there are counts of live credentials, 0 as long as nobody needed the index or it is being made.", "there can be an index"},

	{"login_attempts_total", "counter", []string{"outcome"}, "Passwords of built-in users: right, wrong, throttled (not looked at, after too many wrong ones) or busy (not looked at, too many at once).", "there are built-in users"},
	{"password_hashes_total", "counter", nil, "Password hashes that were computed.", "there are built-in users"},
	{"password_hashes_waiting", "gauge", nil, "Passwords that wait for their hash to be computed.", "there are built-in users"},

	{"http_seconds", "histogram", []string{"route", "code"}, "How long requests took, by route and class of status (2xx). Paths that no route has are other.", ""},
	{"event_streams", "gauge", nil, "Clients that follow the events.", ""},

	{"store_seconds", "histogram", []string{"call", "outcome"}, "How long the store took: get, apply, touch, list (without what the caller did meanwhile), watch (until it began), purge, scan, load. The outcome is ok or the kind of failure; conflict and not_found are part of ordinary work.", ""},
	{"cache_hits_total", "counter", nil, "Validations answered from memory.", ""},
	{"cache_misses_total", "counter", nil, "Validations that read the store.", ""},
	{"lease_losses_total", "counter", nil, "Validations that read the store only because it had not been heard from within the lease.", ""},
	{"cache_entries", "gauge", nil, "Sessions in memory.", ""},
	{"cache_evictions_total", "counter", nil, "Sessions that had to leave memory for others. If it grows fast, cache_size is small.", ""},
	{"touches_pending", "gauge", nil, "Last uses that wait to be written.", ""},
	{"touches_lost_total", "counter", nil, "Last uses that were never written, since the store did not keep up.", ""},
	{"janitor_backlog_hours", "gauge", nil, "Hours whose expired records are due to be deleted and have not been. 0 and 1 are ordinary.", ""},
	{"janitor_last_success_timestamp_seconds", "gauge", nil, "When expired records were last deleted; 0 before the first time, an hour after the start.", ""},
	{"janitor_seconds", "gauge", nil, "How long that took.", ""},
	{"janitor_failures_total", "counter", nil, "How often it failed.", ""},

	{"revocation_lag_seconds", "histogram", nil, "How long changes took from their commit, on whichever server, until this one had dropped what it knew.", "servers share the store"},
	{"feed_changes_total", "counter", nil, "Changes that came in on the store's feed.", "servers share the store"},
	{"feed_failures_total", "counter", nil, "Questions to the store's feed without an answer.", "servers share the store"},
	{"feed_gaps_total", "counter", nil, "How often everything in memory was dropped, since changes may have been missed.", "servers share the store"},
	{"store_clock_skew_seconds", "gauge", nil, "How far this server's clock is ahead of the store's.", "servers share the store"},

	{"audit_lag_seconds", "gauge", nil, "How long the oldest event waits that is not in the audit log yet.", "there is an audit log"},
	{"audit_failing", "gauge", nil, "1 if the audit log cannot be written.", "there is an audit log"},
	{"audit_entries", "gauge", nil, "The number of the audit log's last entry.", "there is an audit log"},
	{"audit_bytes", "gauge", nil, "The size of the audit log's files.", "there is an audit log"},
	{"webhook_queue", "gauge", nil, "Events that wait to be delivered, for all servers on the store.", "there are webhooks"},
	{"webhook_dead_letters", "gauge", nil, "Events whose delivery was given up.", "there are webhooks"},
	{"webhook_lag_seconds", "gauge", nil, "How long the oldest event waits to be delivered.", "there are webhooks"},
	{"webhook_deliveries_total", "counter", []string{"outcome"}, "What became of events to be delivered, by this server: delivered, failed (a try that is made again), dead_letter (given up), missed (the receiver was told that events are missing) or redelivered (a dead letter was sent again).", "there are webhooks"},

	{"trace_exports_total", "counter", []string{"outcome"}, "Batches of spans that were sent: ok or failed.", "traces are on"},
}

func init() {
	for i := range families {
		families[i].Name = "afterlogin_" + families[i].Name
		descs[families[i].Name] = families[i].desc()
	}
}

var descs = make(map[string]*prometheus.Desc)

func (f *Family) desc() *prometheus.Desc { return prometheus.NewDesc(f.Name, f.Help, f.Labels, nil) }

// familyOf returns the family of the name, which stands without afterlogin_.
func familyOf(name string) *Family {
	for i := range families {
		if families[i].Name == "afterlogin_"+name {
			return &families[i]
		}
	}
	panic("telemetry: no family " + name)
}

// kindNames are the values of the label kind.
var kindNames = []string{"session", "api_key", "refresh_token", "access_token", "jwt", "authorization_code", "ticket", "client"}

// webhookOutcomes are the values of the label outcome of deliveries.
var webhookOutcomes = []string{"delivered", "failed", "dead_letter", "missed", "redelivered"}

// collector collects from what counts by itself. It is an unchecked one: which families there are depends on Options, and
// is looked at each time.
type collector struct{ t *Telemetry }

// Describe implements prometheus.Collector.
func (collector) Describe(chan<- *prometheus.Desc) {}

// sink takes metrics by their families' names.
type sink chan<- prometheus.Metric

func (s sink) put(name string, v float64, labels ...string) {
	f := familyOf(name)
	typ := prometheus.GaugeValue
	if f.Kind == "counter" {
		typ = prometheus.CounterValue
	}
	s <- prometheus.MustNewConstMetric(descs[f.Name], typ, v, labels...)
}

func (s sink) count(name string, n uint64, labels ...string) { s.put(name, float64(n), labels...) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s, o := sink(out), c.t.sources()
	s.put("build_info", 1, o.Version)
	if o.Ready != nil {
		s.put("ready", truth(o.Ready()))
	}
	if o.Stats != nil {
		s.stats(o.Stats())
	}
	if o.Feed != nil {
		s.feed(o.Feed())
	}
	if o.Live != nil {
		live := o.Live()
		s.put("sessions_counted", truth(live.Complete))
		for _, k := range kindNames {
			if live.Complete {
				s.put("sessions_active", float64(live.Kinds[k]), k)
			}
		}
	}
	if o.Users != nil {
		u := o.Users()
		s.count("login_attempts_total", u.Right, "right")
		s.count("login_attempts_total", u.Wrong, "wrong")
		s.count("login_attempts_total", u.Throttled, "throttled")
		s.count("login_attempts_total", u.Busy, "busy")
		s.count("password_hashes_total", u.Hashes)
		s.put("password_hashes_waiting", float64(u.Waiting))
	}
	if o.Streams != nil {
		s.put("event_streams", float64(o.Streams()))
	}
	if o.Audit != nil {
		a := o.Audit()
		s.put("audit_lag_seconds", a.Lag.Seconds())
		s.put("audit_failing", truth(a.Failing))
		s.put("audit_entries", float64(a.Entries))
		s.put("audit_bytes", float64(a.Bytes))
	}
	if o.Webhooks != nil {
		w := o.Webhooks()
		s.put("webhook_queue", float64(w.Queued))
		s.put("webhook_dead_letters", float64(w.Dead))
		s.put("webhook_lag_seconds", w.Lag.Seconds())
		for _, what := range webhookOutcomes {
			s.count("webhook_deliveries_total", w.Tries[what], what)
		}
	}
	if tr := c.t.tracing; tr != nil {
		s.count("trace_exports_total", tr.client.sent.Load(), "ok")
		s.count("trace_exports_total", tr.client.failed.Load(), "failed")
	}
}

func (s sink) stats(st afterlogin.Stats) {
	s.count("cache_hits_total", st.Hits)
	s.count("cache_misses_total", st.Misses)
	s.count("lease_losses_total", st.LeaseLosses)
	s.put("cache_entries", float64(st.Cache.Entries))
	s.count("cache_evictions_total", st.Cache.Evictions)
	v := st.Validations
	s.count("validations_total", v.Valid, "valid")
	s.count("validations_total", v.Refused, "refused")
	s.count("validations_total", v.Unavailable, "unavailable")
	s.count("validations_total", v.Canceled, "canceled")
	s.count("validations_total", v.Limited, "limited")
	for _, r := range afterlogin.Reasons() {
		s.count("refusals_total", st.Refused[r], string(r))
	}
	s.count("grace_total", st.Grace)
	s.count("forgiven_total", st.Forgiven)
	s.count("step_ups_total", st.StepUps)
	for k, n := range st.Issued {
		s.count("issued_total", n, k.String())
	}
	for k, n := range st.Renewed {
		s.count("renewed_total", n, k.String())
	}
	for k, n := range st.Reused {
		s.count("reuse_total", n, k.String())
	}
	r := st.Revoked
	s.count("revocations_total", r.One, "one")
	s.count("revocations_total", r.Sessions, "sessions")
	s.count("revocations_total", r.Everything, "everything")
	s.count("revocations_total", r.Others, "others")
	s.count("revocations_total", r.Origin, "origin")
	s.put("touches_pending", float64(st.Touches.Pending))
	s.count("touches_lost_total", st.Touches.Lost)
	j := st.Janitor
	s.put("janitor_backlog_hours", float64(j.Backlog))
	s.put("janitor_last_success_timestamp_seconds", unix(j.Last))
	s.put("janitor_seconds", j.Took.Seconds())
	s.count("janitor_failures_total", j.Failures)
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func (s sink) feed(f store.Feed) {
	s.count("feed_changes_total", f.Changes)
	s.count("feed_failures_total", f.Failures)
	s.count("feed_gaps_total", f.Gaps)
	s.put("store_clock_skew_seconds", f.Skew.Seconds())
	var sum uint64
	buckets := make(map[float64]uint64, len(store.LagBounds))
	for i, n := range f.Lag {
		sum += n
		if i < len(store.LagBounds) {
			buckets[store.LagBounds[i].Seconds()] = sum
		}
	}
	s <- prometheus.MustNewConstHistogram(descs["afterlogin_revocation_lag_seconds"], sum, f.LagSum.Seconds(), buckets)
}
