package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// The metrics. docs/server.md has a table of them. They are counts of the whole process and name nobody: no subject, no
// session, no client.
var (
	cacheHits   = metric("cache_hits_total", "Validations answered from memory.")
	cacheMisses = metric("cache_misses_total", "Validations that read the store.")
	leaseLosses = metric("lease_losses_total", "Validations that read the store only because it had not been heard from within the lease.")
	changeLag   = metric("revocation_lag_seconds", "How long changes took from their commit, on whichever server, until this one had dropped what it knew.")
	feedChanges = metric("feed_changes_total", "Changes that came in on the store's feed.")
	feedFails   = metric("feed_failures_total", "Questions to the store's feed without an answer.")
	feedGaps    = metric("feed_gaps_total", "How often everything in memory was dropped, since changes may have been missed.")
	clockSkew   = metric("store_clock_skew_seconds", "How far this server's clock is ahead of the store's.")
)

func metric(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("afterlogin_"+name, help, nil, nil)
}

// metrics collects from what counts by itself. feed is nil for a store that one process owns.
type metrics struct {
	stats func() afterlogin.Stats
	feed  func() store.Feed
}

// openMetrics makes /metrics, on a registry of its own: what a library registers elsewhere stays out.
func (s *Server) openMetrics() http.Handler {
	m := metrics{stats: s.authority.Stats}
	if shared, ok := s.data.store.(store.Shared); ok {
		m.feed = shared.Feed
	}
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 10})
}

// Describe implements prometheus.Collector.
func (m metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cacheHits, cacheMisses, leaseLosses} {
		out <- d
	}
	if m.feed == nil {
		return
	}
	for _, d := range []*prometheus.Desc{changeLag, feedChanges, feedFails, feedGaps, clockSkew} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	s := m.stats()
	count(cacheHits, s.Hits)
	count(cacheMisses, s.Misses)
	count(leaseLosses, s.LeaseLosses)
	if m.feed == nil {
		return
	}
	f := m.feed()
	count(feedChanges, f.Changes)
	count(feedFails, f.Failures)
	count(feedGaps, f.Gaps)
	out <- prometheus.MustNewConstMetric(clockSkew, prometheus.GaugeValue, f.Skew.Seconds())
	var sum uint64
	buckets := make(map[float64]uint64, len(store.LagBounds))
	for i, n := range f.Lag {
		sum += n
		if i < len(store.LagBounds) {
			buckets[store.LagBounds[i].Seconds()] = sum
		}
	}
	out <- prometheus.MustNewConstHistogram(changeLag, sum, f.LagSum.Seconds(), buckets)
}
