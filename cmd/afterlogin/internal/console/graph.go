package console

import (
	"fmt"
	"net/url"
	"sort"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// A graph is a credential with what it lives under and what came from it, drawn as a tree. A list of the same stands behind
// it.
type graph struct {
	Nodes  []node
	Edges  []string // paths
	Height int
	Width  int
	More   int // what is not shown
	Desc   string
}

type node struct {
	*api.Session
	Depth int
	X, Y  int // of its box
	Mid   int // of its text
	Here  bool
	Class string
}

// The sizes of the drawing.
const (
	nodeHeight, nodeGap, nodeIndent, nodeWidth = 44, 14, 36, 420
	maxNodes                                   = 40
)

// graphOf puts together what the session stands among.
func (v *visit) graphOf(s *api.Session, ex *api.Explanation) (graph, error) {
	var g graph
	depth := 0
	if ex != nil {
		for i := len(ex.Above) - 1; i >= 0; i-- {
			g.add(ex.Above[i], depth, false)
			depth++
		}
	}
	g.add(s, depth, true)
	if s.Kind != "client" {
		below, err := v.below(s)
		if err != nil {
			return g, err
		}
		for _, c := range below {
			if c.Grant == "" || c.Grant == s.ID || c.Kind == "refresh_token" {
				g.add(c, depth+1, false)
				for _, cc := range below { // access tokens of a grant
					if cc.Grant == c.ID && cc.ID != c.ID {
						g.add(cc, depth+2, false)
					}
				}
			}
		}
	}
	if s.Subject != "" && s.Kind != "client" {
		var list api.List
		q := url.Values{"ended": {"true"}, "limit": {"500"}}
		if err := v.get("/v1/subjects/"+seg(s.Subject)+"/sessions", q, &list); err != nil && (problemOf(err) == nil || problemOf(err).Status >= 500) {
			return g, err
		}
		from := make(map[string][]*api.Session)
		for _, other := range list.Data {
			if other.Origin != "" && other.ID != s.ID {
				from[other.Origin] = append(from[other.Origin], other)
			}
		}
		g.derived(from, s.ID, depth+1)
	}
	g.draw()
	return g, nil
}

// maxBelow is how many of the tokens that live under a credential are looked up.
const maxBelow = 20

// below returns what lives under the credential. No list of the store has that; the audit log names what was made under it,
// if there is one, and the person may read it.
func (v *visit) below(s *api.Session) ([]*api.Session, error) {
	if !v.hasAudit() {
		return nil, nil
	}
	var log api.AuditList
	if err := v.get("/v1/audit", url.Values{"session": {s.ID}, "limit": {"200"}}, &log); err != nil {
		if p := problemOf(err); p != nil && p.Status < 500 {
			return nil, nil
		}
		return nil, err
	}
	var out []*api.Session
	seen := map[string]bool{s.ID: true}
	for _, e := range log.Data {
		if e.Session == "" || seen[e.Session] || len(seen) > maxBelow {
			continue
		}
		seen[e.Session] = true
		var c api.Session
		switch err := v.get("/v1/sessions/"+seg(e.Session), nil, &c); {
		case err == nil:
			if c.Root != "" { // otherwise it stands by itself
				out = append(out, &c)
			}
		case problemOf(err) == nil || problemOf(err).Status >= 500:
			return nil, err
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].CreatedAt.Before(out[j].CreatedAt) })
	return out, nil
}

func (g *graph) derived(from map[string][]*api.Session, id string, depth int) {
	sort.Slice(from[id], func(i, j int) bool { return from[id][i].CreatedAt.Before(from[id][j].CreatedAt) })
	for _, s := range from[id] {
		g.add(s, depth, false)
		if depth < 8 {
			g.derived(from, s.ID, depth+1)
		}
	}
}

func (g *graph) add(s *api.Session, depth int, here bool) {
	if len(g.Nodes) >= maxNodes {
		g.More++
		return
	}
	n := node{Session: s, Depth: depth, Here: here, Class: "box"}
	switch {
	case s.EndedAt != nil:
		n.Class += " over"
	case s.Frozen:
		n.Class += " hold"
	}
	if here {
		n.Class += " here"
	}
	g.Nodes = append(g.Nodes, n)
}

// draw places the boxes, one below the other, and the lines between them.
func (g *graph) draw() {
	last := make(map[int]int) // by depth: the middle of the last box
	for i := range g.Nodes {
		n := &g.Nodes[i]
		n.X, n.Y = 2+n.Depth*nodeIndent, 2+i*(nodeHeight+nodeGap)
		n.Mid = n.Y + nodeHeight/2
		if from, ok := last[n.Depth-1]; ok {
			x := 2 + (n.Depth-1)*nodeIndent + nodeIndent/2
			g.Edges = append(g.Edges, fmt.Sprintf("M%d %dV%dH%d", x, from+nodeHeight/2, n.Mid, n.X))
		}
		last[n.Depth] = n.Mid
		g.Width = max(g.Width, n.X+nodeWidth+2)
	}
	g.Height = len(g.Nodes)*(nodeHeight+nodeGap) - nodeGap + 4
	g.Desc = plural(len(g.Nodes)-1, "other credential is", "other credentials are") + " connected with this one."
}

// A timeLine is the life of a credential: when it was made, when its token was renewed, and when it ends.
type timeLine struct {
	Points []point
	Now    string // its place
	Desc   string
}

// point is a moment.
type point struct {
	At    time.Time
	Label string
	X     string // its place, of 1000
	Class string
}

// timeLineOf puts together the moments that are known.
func timeLineOf(s *api.Session, ex *api.Explanation, now time.Time) timeLine {
	var l timeLine
	add := func(at time.Time, label, class string) {
		l.Points = append(l.Points, point{At: at, Label: label, Class: class})
	}
	add(s.CreatedAt, "made, generation 1", "made")
	if ex != nil {
		for _, r := range ex.Rotations {
			label := fmt.Sprintf("renewed, generation %d", r.Generation)
			if r.Fresh {
				label += ", with a fresh secret"
			}
			add(r.At, label, "renewed")
		}
	}
	add(s.LastSeenAt, "last used", "seen")
	switch {
	case s.EndedAt != nil:
		add(*s.EndedAt, "over: "+reason(s.EndedWhy), "over")
	default:
		if s.IdleAt != nil {
			add(*s.IdleAt, "ends, if it is not used", "idle")
		}
		if s.ExpiresAt != nil {
			add(*s.ExpiresAt, "ends in any case", "end")
		}
	}
	sort.SliceStable(l.Points, func(i, j int) bool { return l.Points[i].At.Before(l.Points[j].At) })
	first, end := l.Points[0].At, l.Points[len(l.Points)-1].At
	if end.Before(now) {
		end = now
	}
	// What was and what will be have each their own scale, or the last hour would be a dot before the coming month.
	middle := 990.0
	if end.After(now) {
		middle = 600
	}
	place := func(t time.Time) string {
		if !t.After(now) {
			return coord(10 + (middle-10)*t.Sub(first).Seconds()/max(1, now.Sub(first).Seconds()))
		}
		return coord(middle + (990-middle)*t.Sub(now).Seconds()/max(1, end.Sub(now).Seconds()))
	}
	for i := range l.Points {
		l.Points[i].X = place(l.Points[i].At)
	}
	l.Now = place(now)
	l.Desc = fmt.Sprintf("From %s to %s; generation %d.", stamp(first), stamp(end), s.Generation)
	return l
}
