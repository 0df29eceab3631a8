package pulse

import (
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// An Overview is how a server does, as GET /v1/overview answers it:
//
//	{
//	  "at": "2027-01-02T15:04:05Z",
//	  "server":  {"node": "a", "version": "v1.0.0", "store": "embedded", "started": "…", "uptime": 4711, "ready": true},
//	  "live":    {"complete": true, "at": "…", "total": 120, "kinds": {"session": 100, "api_key": 20}, "policies": {"browser": 100, "api-key": 20}},
//	  "totals":      {"sign_ins": 7, "renewals": 3, "sign_outs": 1, "revocations": 0, "refusals": 5, "alarms": 1, "validations": 912},
//	  "last_minute": {"sign_ins": 1, …},
//	  "refused": {"expired": 4, "reused": 1},
//	  "seconds": {"start": "…", "step": 1,  "sign_ins": [0,1,…], …, "refused": {"expired": [0,4,…]}, "p50": [0.02,…], "p95": […], "p99": […]},
//	  "minutes": {"start": "…", "step": 60, …},
//	  "alarms":  [{"at": "…", "type": "session.reuse_detected", "session": "ses_…", "subject": "mia", "reason": "reused", "detail": "…"}]
//	}
//
// All series of one object have the same length; the last point of "minutes" is the minute that is still running.
type Overview struct {
	At      time.Time         `json:"at" doc:"When this was put together."`
	Server  Server            `json:"server"`
	Live    *Live             `json:"live,omitempty" doc:"What is live now, on the whole store. Absent if it is not counted."`
	Totals  Counts            `json:"totals" doc:"Since the server started."`
	Minute  Counts            `json:"last_minute" doc:"In the last 60 whole seconds."`
	Refused map[string]uint64 `json:"refused" doc:"Refusals since the server started, by reason."`
	Seconds Series            `json:"seconds" doc:"The last five minutes, a point for each second."`
	Minutes Series            `json:"minutes" doc:"The last 24 hours, a point for each minute; the last one is still running."`
	Alarms  []Alarm           `json:"alarms" doc:"The latest signs of theft, the newest first, at most 100. Empty without the scope sessions:read."`
}

// A Server is which server answers, and whether it is well.
type Server struct {
	Node    string    `json:"node" doc:"The name of the host it runs on."`
	Version string    `json:"version"`
	Store   string    `json:"store" doc:"embedded, or the store's address without a password."`
	Started time.Time `json:"started"`
	Uptime  int64     `json:"uptime" doc:"In seconds."`
	Ready   bool      `json:"ready" doc:"Whether requests should be sent here, as /readyz says."`
	Reason  string    `json:"reason,omitempty" doc:"Why not."`
	Skew    *float64  `json:"clock_skew,omitempty" doc:"How far this server's clock is ahead of the store's, in seconds. Absent if the store has none."`
}

// Live counts what is live.
type Live struct {
	Complete bool           `json:"complete" doc:"False while the server is reading the store, after its start and when it has missed changes: there may be more."`
	At       time.Time      `json:"at"`
	Total    int            `json:"total"`
	Kinds    map[string]int `json:"kinds" doc:"By kind: session, api_key, refresh_token, …"`
	Policies map[string]int `json:"policies" doc:"By policy: browser, remember, …"`
}

// Counts are how often things happened.
type Counts struct {
	SignIns     uint64 `json:"sign_ins" doc:"Sessions of people that began."`
	Renewals    uint64 `json:"renewals" doc:"Tokens that were replaced by their successors."`
	SignOuts    uint64 `json:"sign_outs" doc:"Sessions that their people ended."`
	Revocations uint64 `json:"revocations" doc:"Whatever else was ended on purpose; all sessions of somebody at once count as one."`
	Refusals    uint64 `json:"refusals" doc:"Tokens that were refused, by this server."`
	Alarms      uint64 `json:"alarms" doc:"Signs of theft: tokens that were used after they had been replaced."`
	Validations uint64 `json:"validations" doc:"Tokens that were validated, by this server, with whatever result."`
}

func (c *Counts) add(d Counts) {
	c.SignIns += d.SignIns
	c.Renewals += d.Renewals
	c.SignOuts += d.SignOuts
	c.Revocations += d.Revocations
	c.Refusals += d.Refusals
	c.Alarms += d.Alarms
	c.Validations += d.Validations
}

// A Series is figures over time. All arrays are equally long; the first point begins at Start.
type Series struct {
	Start       time.Time           `json:"start"`
	Step        int                 `json:"step" doc:"Seconds from one point to the next."`
	SignIns     []uint64            `json:"sign_ins"`
	Renewals    []uint64            `json:"renewals"`
	SignOuts    []uint64            `json:"sign_outs"`
	Revocations []uint64            `json:"revocations"`
	Refusals    []uint64            `json:"refusals"`
	Alarms      []uint64            `json:"alarms"`
	Validations []uint64            `json:"validations"`
	Refused     map[string][]uint32 `json:"refused" doc:"Refusals by reason; only reasons that there were."`
	P50         []float32           `json:"p50" doc:"Half of the validations took no longer, in milliseconds; 0 if there was none."`
	P95         []float32           `json:"p95"`
	P99         []float32           `json:"p99"`
}

// An Alarm is a sign of theft: a token was used after it had been replaced, or is newer than the store.
type Alarm struct {
	At      time.Time `json:"at"`
	Type    string    `json:"type"`
	Session string    `json:"session,omitempty" doc:"Its public handle: ses_…, grant_…, key_…"`
	Tenant  uint32    `json:"tenant,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Detail  string    `json:"detail,omitempty" doc:"In plain words."`
}

func newAlarm(e afterlogin.Event) Alarm {
	return Alarm{
		At: e.At.UTC(), Type: e.Type, Session: string(e.Session), Tenant: e.Tenant, Subject: e.Subject, Reason: string(e.Reason), Detail: e.Detail,
	}
}

// Overview puts together how the server does, with so many of the latest points. It waits for nothing but Options.Live
// and Options.Skew, which answer from memory.
func (p *Pulse) Overview(seconds, minutes int) *Overview {
	now := p.o.Now()
	o := &Overview{
		At: now.UTC().Truncate(time.Millisecond),
		Server: Server{
			Node: p.o.Node, Version: p.o.Version, Store: p.o.Store, Started: p.started.UTC().Truncate(time.Second), Uptime: int64(now.Sub(p.started) / time.Second),
		},
		Refused: make(map[string]uint64),
	}
	if p.o.Live != nil {
		o.Live = p.o.Live()
	}
	if p.o.Skew != nil {
		s := p.o.Skew().Seconds()
		o.Server.Skew = &s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	second, minute := p.place(now)
	o.Server.Reason = p.unready()
	o.Server.Ready = o.Server.Reason == ""
	o.Totals = p.totals
	for _, r := range p.reasons {
		if n := p.last.Refused[r]; n > 0 {
			o.Refused[string(r)] = n
		}
	}
	p.seconds.slot(second)
	p.minutes.slot(minute)
	for n := max(0, second-60); n < second; n++ {
		o.Minute.add(p.seconds.points[p.seconds.slot(n)].counts)
	}
	// Behind the moment that it is: the last whole second, and the minute that is running.
	o.Seconds = p.series(p.seconds, second-1, min(seconds, Seconds))
	o.Seconds.Step = 1
	o.Seconds.Start = now.UTC().Truncate(time.Second).Add(-time.Duration(len(o.Seconds.P50)) * time.Second)
	o.Minutes = p.series(p.minutes, minute, min(minutes, Minutes))
	o.Minutes.Step = 60
	o.Minutes.Start = now.UTC().Truncate(time.Minute).Add(-time.Duration(len(o.Minutes.P50)-1) * time.Minute)
	o.Alarms = slices.Clone(p.alarms)
	slices.Reverse(o.Alarms)
	if o.Alarms == nil {
		o.Alarms = []Alarm{}
	}
	return o
}

// series returns the n points of the ring that end with the numbered one, fewer if the server has not run for so long.
func (p *Pulse) series(r *ring, last int64, n int) Series {
	first := max(0, last-int64(n)+1, r.newest-int64(len(r.points))+1)
	n = int(max(0, last-first+1))
	s := Series{
		SignIns: make([]uint64, n), Renewals: make([]uint64, n), SignOuts: make([]uint64, n), Revocations: make([]uint64, n),
		Refusals: make([]uint64, n), Alarms: make([]uint64, n), Validations: make([]uint64, n),
		P50: make([]float32, n), P95: make([]float32, n), P99: make([]float32, n),
	}
	refused := make(map[string][]uint32)
	for i := range n {
		at := r.slot(first + int64(i))
		c := &r.points[at]
		s.SignIns[i], s.Renewals[i], s.SignOuts[i], s.Revocations[i] = c.counts.SignIns, c.counts.Renewals, c.counts.SignOuts, c.counts.Revocations
		s.Refusals[i], s.Alarms[i], s.Validations[i] = c.counts.Refusals, c.counts.Alarms, c.counts.Validations
		s.P50[i], s.P95[i], s.P99[i] = c.took[0], c.took[1], c.took[2]
		for j, by := range r.refusals[at*r.reasons : (at+1)*r.reasons] {
			if by == 0 {
				continue
			}
			name := string(p.reasons[j])
			if refused[name] == nil {
				refused[name] = make([]uint32, n)
			}
			refused[name][i] = by
		}
	}
	s.Refused = refused
	return s
}
