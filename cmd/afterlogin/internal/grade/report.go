package grade

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

// Results of a check.
const (
	ResultOK      = "ok"
	ResultFinding = "finding"
	ResultInfo    = "info"       // worth knowing, and no weakness by itself
	ResultUnknown = "not judged" // seen says why
)

// A Check is one thing that was looked at.
type Check struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"` // what should hold
	Result     string   `json:"result"`
	Severity   string   `json:"severity,omitempty"` // of a finding: high, medium, low
	Seen       []string `json:"seen"`               // never with a token in it
	Why        string   `json:"why"`
	Remedy     string   `json:"remedy"`
	References []string `json:"references"`
}

// Counts are the findings by severity, and the checks that could not be judged.
type Counts struct {
	High      int `json:"high"`
	Medium    int `json:"medium"`
	Low       int `json:"low"`
	NotJudged int `json:"not_judged"`
}

// A Report is what an examination found. Its JSON form is documented in docs/grade.md; Version changes when that does.
type Report struct {
	Version     int       `json:"version"`
	Target      string    `json:"target"`
	Started     time.Time `json:"started"`
	Finished    time.Time `json:"finished"`
	Requests    int       `json:"requests"`
	SignIns     int       `json:"sign_ins"`   // whose tokens were compared
	Credential  string    `json:"credential"` // "cookie NAME", "bearer token", "parameter of the address NAME"
	Token       string    `json:"token"`      // masked
	Page        string    `json:"page"`       // that told who is signed in
	ToldBy      string    `json:"told_by"`
	Grade       string    `json:"grade"`             // empty: it ended early, and nothing was found by then
	Complete    bool      `json:"complete"`          // whether everything that applies was judged
	Stopped     string    `json:"stopped,omitempty"` // why the examination ended early
	Counts      Counts    `json:"counts"`
	Checks      []Check   `json:"checks"`
	Notes       []string  `json:"notes,omitempty"`
	NotExamined []string  `json:"not_examined"`

	err error
}

// Err is why the examination ended early; nil: it did not.
func (r *Report) Err() error { return r.err }

// mask is how a token is shown: its first characters, at most a third of them and at most 4, and its length.
func mask(token string) string {
	return fmt.Sprintf("%s… (%d characters)", printable(token[:min(4, len(token)/3)]), utf8.RuneCountInString(token))
}

// record adds the result of a check. A finding without a severity has that of its kind.
func (r *Report) record(id, result, severity string, seen ...string) {
	k := kinds[id]
	if result == ResultFinding && severity == "" {
		severity = k.severity
	}
	if result != ResultFinding {
		severity = ""
	}
	if seen == nil {
		seen = []string{}
	}
	c := Check{ID: id, Title: k.title, Result: result, Severity: severity, Seen: seen, Why: k.why, Remedy: k.remedy, References: k.references}
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == id })
	if i < 0 {
		r.Checks = append(r.Checks, c)
		return
	}
	// Looked at more than once: the worst counts, and all that was seen stands there.
	if rank(c) > rank(r.Checks[i]) {
		c.Seen = append(slices.Clone(r.Checks[i].Seen), c.Seen...)
		if r.Checks[i].Result != ResultFinding {
			c.Seen = seen
		}
		r.Checks[i] = c
	} else if rank(c) == rank(r.Checks[i]) {
		r.Checks[i].Seen = append(r.Checks[i].Seen, c.Seen...)
	}
}

func rank(c Check) int {
	switch c.Result {
	case ResultFinding:
		return 10 - slices.Index([]string{High, Medium, Low}, c.Severity)
	case ResultUnknown:
		return 2
	case ResultInfo:
		return 1
	}
	return 0
}

func (r *Report) ok(id string, seen ...string)      { r.record(id, ResultOK, "", seen...) }
func (r *Report) info(id string, seen ...string)    { r.record(id, ResultInfo, "", seen...) }
func (r *Report) unknown(id string, seen ...string) { r.record(id, ResultUnknown, "", seen...) }
func (r *Report) found(id, severity string, seen ...string) {
	r.record(id, ResultFinding, severity, seen...)
}

// finish counts, grades and sorts.
func (r *Report) finish(e *examination) {
	r.Finished, r.Requests, r.SignIns = e.Now().UTC(), e.web.made, len(e.tokens)
	r.Credential = e.cred.String()
	r.NotExamined = notExamined
	r.clean(&e.web.secrets)
	slices.SortFunc(r.Checks, func(a, b Check) int { return slices.Index(order, a.ID) - slices.Index(order, b.ID) })
	r.count()
}

// clean takes tokens out of all that the site has a say in, wherever it put them.
func (r *Report) clean(secrets *site.Secrets) {
	texts := []*string{&r.Target, &r.Credential, &r.Page, &r.ToldBy, &r.Stopped}
	for i := range r.Notes {
		texts = append(texts, &r.Notes[i])
	}
	for i := range r.Checks {
		for j := range r.Checks[i].Seen {
			texts = append(texts, &r.Checks[i].Seen[j])
		}
	}
	list := make([]string, len(texts))
	for i, t := range texts {
		list[i] = *t
	}
	for i, t := range secrets.Clean(list...) {
		*texts[i] = site.Lines(t)
	}
}

// count counts the findings and works out the grade:
//
//	A  nothing, or only what is worth knowing
//	B  low findings only
//	C  one or two medium ones
//	D  one high finding, or three medium ones and more
//	F  two high findings and more
//
// An examination that ended early is graded by what it found, and not at all if that is nothing.
func (r *Report) count() {
	r.Counts = Counts{}
	for _, c := range r.Checks {
		switch {
		case c.Result == ResultUnknown:
			r.Counts.NotJudged++
		case c.Severity == High:
			r.Counts.High++
		case c.Severity == Medium:
			r.Counts.Medium++
		case c.Severity == Low:
			r.Counts.Low++
		}
	}
	r.Complete = r.Counts.NotJudged == 0 && r.Stopped == ""
	n := r.Counts
	switch {
	case n.High > 1:
		r.Grade = "F"
	case n.High == 1 || n.Medium > 2:
		r.Grade = "D"
	case n.Medium > 0:
		r.Grade = "C"
	case n.Low > 0:
		r.Grade = "B"
	case r.Stopped != "":
		r.Grade = ""
	default:
		r.Grade = "A"
	}
}

// Worst reports whether there is a finding of the severity or a worse one. Of "none" there is none.
func (r *Report) Worst(severity string) bool {
	switch n := r.Counts; severity {
	case High:
		return n.High > 0
	case Medium:
		return n.High+n.Medium > 0
	case Low:
		return n.High+n.Medium+n.Low > 0
	}
	return false
}

// Text writes the report for people.
func (r *Report) Text(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: grade %s", r.Target, or(r.Grade, "none"))
	if !r.Complete {
		b.WriteString(" (incomplete)")
	}
	fmt.Fprintf(&b, "\n%s; %s; %s; %d sign-ins, %d requests, %v\n", plural(r.Counts.High, "high finding"), plural(r.Counts.Medium, "medium one"), plural(r.Counts.Low, "low one"),
		r.SignIns, r.Requests, r.Finished.Sub(r.Started).Round(100*time.Millisecond))
	if r.Token != "" {
		fmt.Fprintf(&b, "The token: %s, %s. Told by %s: %s.\n", r.Credential, r.Token, r.Page, r.ToldBy)
	}
	if r.Stopped != "" {
		fmt.Fprintf(&b, "The examination ended early: %s.\n", r.Stopped)
	}
	for _, c := range r.Checks {
		if c.Result != ResultFinding {
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s: not so\n", strings.ToUpper(c.Severity), c.Title)
		wrap(&b, "seen", strings.Join(c.Seen, "; "))
		wrap(&b, "why", c.Why)
		wrap(&b, "remedy", c.Remedy)
		wrap(&b, "see", c.ID+"; "+strings.Join(c.References, ", "))
	}
	section := func(title, result string) {
		first := true
		for _, c := range r.Checks {
			if c.Result != result {
				continue
			}
			if first {
				fmt.Fprintf(&b, "\n%s\n", title)
				first = false
			}
			line := c.Title
			if len(c.Seen) > 0 {
				line += ": " + strings.Join(c.Seen, "; ")
			}
			wrap(&b, c.ID, line)
		}
	}
	section("Not judged", ResultUnknown)
	section("Worth knowing", ResultInfo)
	section("In order", ResultOK)
	if len(r.Notes) > 0 {
		b.WriteString("\nNotes\n")
		for _, n := range r.Notes {
			wrap(&b, "", n)
		}
	}
	b.WriteString("\nNot examined\n")
	for _, n := range r.NotExamined {
		wrap(&b, "", n)
	}
	_, err := io.WriteString(out, site.Lines(b.String()))
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// wrap writes a labelled paragraph, indented; without a label it is an item of a list.
func wrap(b *strings.Builder, label, text string) {
	if label == "" {
		site.Wrap(b, "  - ", 4, text)
		return
	}
	site.Wrap(b, fmt.Sprintf("  %-18s", label), 20, text)
}
