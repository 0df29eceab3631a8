package console

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
)

// overviewData is what the overview shows.
type overviewData struct {
	*pulse.Overview
	Span    string
	Spans   []spanOf
	Charts  []chart
	Reasons []reasonCount
	Kinds   []named
	Alarms  []pulse.Alarm
	More    int // alarms that are not shown
}

// reasonCount is how often tokens were refused for a reason.
type reasonCount struct {
	Reason string
	Count  uint64
	Width  string // of its bar, of 100
}

type named struct {
	Name  string
	Count int
}

// maxAlarmsShown is how many alarms the overview shows.
const maxAlarmsShown = 10

// overview shows how the server does.
func (v *visit) overview() error {
	at := spans[0]
	for _, s := range spans {
		if s.Name == v.r.URL.Query().Get("span") {
			at = s
		}
	}
	q := url.Values{"seconds": {"300"}, "minutes": {"0"}}
	switch at.Name {
	case "1h":
		q = url.Values{"seconds": {"0"}, "minutes": {"60"}}
	case "24h":
		q = url.Values{"seconds": {"0"}, "minutes": {"1440"}}
	}
	var o pulse.Overview
	if err := v.get("/v1/overview", q, &o); err != nil {
		return err
	}
	d := overviewData{Overview: &o, Span: at.Name, Spans: spans}
	series, end := o.Seconds, o.Seconds.Start.Add(time.Duration(len(o.Seconds.SignIns))*time.Second)
	if at.minutes {
		series, end = o.Minutes, o.Minutes.Start.Add(time.Duration(len(o.Minutes.SignIns))*time.Minute)
	}
	d.Charts = charts(series, at, end)
	var most uint64
	for r, n := range o.Refused {
		d.Reasons, most = append(d.Reasons, reasonCount{Reason: r, Count: n}), max(most, n)
	}
	slices.SortFunc(d.Reasons, func(a, b reasonCount) int {
		if a.Count != b.Count {
			return int(int64(b.Count) - int64(a.Count))
		}
		return strings.Compare(a.Reason, b.Reason)
	})
	for i := range d.Reasons {
		d.Reasons[i].Width = coord(float64(d.Reasons[i].Count) / float64(most) * 100)
	}
	if o.Live != nil {
		for k, n := range o.Live.Kinds {
			d.Kinds = append(d.Kinds, named{k, n})
		}
		slices.SortFunc(d.Kinds, func(a, b named) int { return strings.Compare(a.Name, b.Name) })
	}
	d.Alarms = o.Alarms[:min(len(o.Alarms), maxAlarmsShown)]
	d.More = len(o.Alarms) - len(d.Alarms)
	return v.show("overview", "Overview", d)
}

// charts draws the series.
func charts(s pulse.Series, at spanOf, end time.Time) []chart {
	n := int(at.bar / (time.Duration(max(1, s.Step)) * time.Second))
	pad := func(values []uint64) []uint64 { // a server that started a moment ago has fewer points
		want := map[string]int{"5m": 300, "1h": 60, "24h": 1440}[at.Name]
		if len(values) >= want {
			return values
		}
		return append(make([]uint64, want-len(values)), values...)
	}
	times := func(values []float32) []float64 {
		counted := make([]float64, len(values))
		for i, v := range values {
			counted[i] = float64(v)
		}
		want := map[string]int{"5m": 300, "1h": 60, "24h": 1440}[at.Name]
		if len(counted) < want {
			counted = append(make([]float64, want-len(counted)), counted...)
		}
		return peaks(counted, n)
	}
	counted := func(id, title, unit string, values []uint64) chart {
		return bars(id, title, unit, sums(pad(values), n), at.bar, end)
	}
	return []chart{
		counted("sign-ins", "Sign-ins", "sign-ins", s.SignIns),
		counted("renewals", "Renewals", "renewals", s.Renewals),
		counted("refusals", "Refusals", "refusals", s.Refusals),
		counted("alarms", "Theft alarms", "alarms", s.Alarms),
		lines("latency", "Time of a validation", []string{"half within", "95 % within", "99 % within"}, [][]float64{times(s.P50), times(s.P95), times(s.P99)}, at.bar, end),
	}
}
