package audit

import (
	"context"
	"encoding/json"
	"slices"
)

// whose notes what there is to know of whose log this is: one that was put into the place of another is in order, and so is
// one that was begun when another had been taken away.
func (v *verification) whose(ctx context.Context) {
	if v.o.Node != "" && len(v.nodes) > 0 && !slices.Contains(v.nodes, v.o.Node) {
		v.note("this server is %q, and the log was begun by %q: is it the log of another?", v.o.Node, v.nodes)
		v.nodes = append(v.nodes, v.o.Node)
	} else if len(v.nodes) > 1 {
		v.note("the segments were begun by servers of different names, %q: are they one?", v.nodes)
	}
	if v.o.Authority == nil || v.report.Log == "" {
		return
	}
	others := 0
	for e, err := range v.o.Authority.Entries(ctx, 0, Realm) {
		if err != nil {
			v.note("what other logs the store knows of was not compared: %v", err)
			return
		}
		var a announcement
		if e.Name == v.report.Log || json.Unmarshal(e.Detail, &a) != nil || !slices.Contains(v.nodes, a.Node) {
			continue
		}
		if others++; others <= 10 { // servers may be of one name
			v.note("the store knows of another log of %q, %s, of %s: unless it was put away on purpose, it was taken away", a.Node, e.Name, stamp(a.At))
		}
	}
}
