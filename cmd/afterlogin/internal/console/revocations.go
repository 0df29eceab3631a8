package console

import (
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// jobPace is how often the page of a revocation is made anew while something goes on.
const jobPace = time.Second

// A job is a revocation by a query, and what a page says of it.
type job struct {
	*api.Revocation
	Word, Tone string // of its badge
	Working    bool
}

// jobWords are the states of revocations in words.
var jobWords = map[string]job{
	"counting":  {Word: "counting", Tone: "hold", Working: true},
	"ready":     {Word: "to be confirmed", Tone: "hold"},
	"freezing":  {Word: "freezing", Tone: "alarm", Working: true},
	"frozen":    {Word: "frozen, can be undone", Tone: "alarm"},
	"revoking":  {Word: "ending", Tone: "alarm", Working: true},
	"done":      {Word: "done", Tone: "over"},
	"thawing":   {Word: "thawing", Tone: "hold", Working: true},
	"undone":    {Word: "undone", Tone: "live"},
	"cancelled": {Word: "cancelled", Tone: "over"},
	"failed":    {Word: "failed", Tone: "alarm"},
}

func newJob(r *api.Revocation) job {
	j := jobWords[r.State]
	j.Revocation = r
	if r.State == "ready" && r.DryRun {
		j.Word = "counted"
	}
	if j.Word == "" {
		j.Word = r.State
	}
	return j
}

// Percent is how far the work is, 0 to 100; -1: that is not known.
func (j job) Percent() int {
	if j.Progress == nil || j.Progress.Total <= 0 {
		return -1
	}
	return min(100, j.Progress.Done*100/j.Progress.Total)
}

// Doing is what goes on now, in words.
func (j job) Doing() string {
	if j.Progress == nil {
		return map[string]string{"counting": "Counting begins…", "freezing": "Freezing begins…", "revoking": "Ending begins…", "thawing": "Thawing begins…"}[j.State]
	}
	n := thousands(j.Progress.Done)
	if j.Progress.Total > 0 && j.State != "counting" {
		n += " of " + thousands(j.Progress.Total)
	}
	switch j.State {
	case "counting":
		return "Counting: " + n + " match so far, of " + thousands(j.Progress.Looked) + " that were looked at."
	case "freezing":
		return "Freezing: " + n + "."
	case "revoking":
		return "Ending: " + n + "."
	}
	return "Thawing: " + n + "."
}

// About is how long the work takes still, in words; empty if that is not known.
func (j job) About() string {
	if j.Progress == nil || j.Progress.RemainingSeconds <= 0 {
		return ""
	}
	return "about " + span(time.Duration(j.Progress.RemainingSeconds)*time.Second) + " left"
}

// countdown says to the second how much of the time to an end is left.
func countdown(now time.Time, at any) string {
	t, ok := asTime(at)
	d := t.Sub(now).Truncate(time.Second)
	switch {
	case !ok || d <= 0:
		return "over"
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s left"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min " + strconv.Itoa(int(d%time.Minute/time.Second)) + " s left"
	}
	return left(now, at)
}

// revocations lists revocations by query.
func (v *visit) revocations() error {
	var list api.RevocationList
	if err := v.get("/v1/revocations", nil, &list); err != nil {
		return err
	}
	jobs := make([]job, 0, len(list.Data))
	for _, r := range list.Data {
		j := newJob(r)
		if j.Working {
			v.pace = jobPace
		}
		jobs = append(jobs, j)
	}
	v.matters = func(*api.Event) bool { return false }
	return v.show("revocations", "Revoke by query", jobs)
}

// revocationForm is what the form of a revocation shows besides what stands in it.
type revocationForm struct {
	Query  string
	Fields []string
}

func (v *visit) newRevocation() error {
	return v.show("revocation-new", newRevocationTitle, revocationForm{v.r.URL.Query().Get("q"), query.Fields()})
}

const newRevocationTitle = "End sessions by a query"

// makeRevocation has the sessions counted that a query means.
func (v *visit) makeRevocation() error {
	in := api.CreateRevocationRequest{Query: v.field("query"), UndoWindow: v.field("undo_window"), All: v.form.Get("all") != ""}
	if in.Query != "" {
		in.All = false // the box is for a query without a term
	}
	var made api.Revocation
	if err := v.post("/v1/revocations", in, &made); err != nil {
		return v.again("revocation-new", newRevocationTitle, revocationForm{"", query.Fields()}, err)
	}
	v.c.redirect(v.w, v.c.path("revocations", made.ID))
	return nil
}

// revocationData is what the page of one revocation shows.
type revocationData struct {
	Job  job
	Rows []*api.Found
}

func (v *visit) readJob() (*api.Revocation, error) {
	var r api.Revocation
	err := v.get("/v1/revocations/"+seg(v.r.PathValue("id")), nil, &r)
	return &r, err
}

// revocation shows one revocation while it goes on.
func (v *visit) revocation() error {
	r, err := v.readJob()
	if err != nil {
		return err
	}
	j := newJob(r)
	if j.Working || j.State == "frozen" {
		v.pace = jobPace
	}
	v.matters = func(*api.Event) bool { return false } // each that is frozen is an event; what counts is the state
	v.say = "This revocation is " + j.Word + "."
	if j.State == "ready" {
		v.say = plural(j.Matched, "match is", "matches are") + " counted."
	}
	return v.show("revocation", "Revoke by query", revocationData{j, r.Examples})
}

// askConfirm asks for the number that was counted.
func (v *visit) askConfirm() error {
	r, err := v.readJob()
	if err != nil {
		return err
	}
	return v.confirm(confirmTitle(r), confirmQuestion(r))
}

func confirmTitle(r *api.Revocation) string {
	return "End " + plural(r.Matched, "one", "at once") + "?"
}

func confirmQuestion(r *api.Revocation) question {
	q := question{
		Text: []string{
			"The query means: " + r.Query + ".",
			meant(r) + " frozen at once: refused on every server. After " + r.Undo + " they are ended, and until then you can undo it.",
		},
		Button: "Freeze, then end", Action: "/revocations/" + seg(r.ID) + "/confirm", Back: "/revocations/" + seg(r.ID),
		Field: "count", Label: "How many are to end?", Hint: "Type the number that was counted: " + strconv.Itoa(r.Matched) + ".",
	}
	if r.Undo == "0" || r.Undo == "0s" {
		q.Text[1] = meant(r) + " ended at once, on every server. There is no undo window: this cannot be taken back."
		q.Button = "End them now"
	}
	if r.All {
		q.Text[0] = "There is no term in the query: it means everything that is not over."
	}
	return q
}

// meant says how many of which kinds are: "5 sessions and 1 API key are".
func meant(r *api.Revocation) string {
	var parts []string
	for _, k := range r.Kinds {
		name := kindWords(k.Name)
		parts = append(parts, plural(k.Count, name, name+"s"))
	}
	if len(parts) == 0 {
		return plural(r.Matched, "is", "are")
	}
	last := len(parts) - 1
	text := parts[last]
	if last > 0 {
		text = strings.Join(parts[:last], ", ") + " and " + text
	}
	if r.Matched == 1 {
		return text + " is"
	}
	return text + " are"
}

func (v *visit) confirmRevocation() error {
	id := v.r.PathValue("id")
	text := strings.Map(func(c rune) rune {
		if strings.ContainsRune(" ,.\u202f\u00a0'", c) {
			return -1 // as people write large numbers
		}
		return c
	}, v.field("count"))
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		err = fieldProblem("count", "type the number that was counted, in digits")
	} else {
		err = v.post("/v1/revocations/"+seg(id)+"/confirm", api.ConfirmRequest{Count: n}, nil)
	}
	if err == nil {
		return v.done("/revocations/"+seg(id), "job-confirmed")
	}
	if p := problemOf(err); p == nil || len(p.Errors) == 0 {
		return err
	}
	r, unread := v.readJob()
	if unread != nil {
		return unread
	}
	return v.again("confirm", confirmTitle(r), confirmQuestion(r), err)
}

func (v *visit) undoRevocation() error { return v.stopRevocation("undo", "job-undone") }

func (v *visit) cancelRevocation() error { return v.stopRevocation("cancel", "job-cancelled") }

func (v *visit) stopRevocation(how, what string) error {
	id := v.r.PathValue("id")
	if err := v.post("/v1/revocations/"+seg(id)+"/"+how, nil, nil); err != nil {
		return err
	}
	return v.done("/revocations/"+seg(id), what)
}

// hasRevocations reports whether the server ends by query.
func (v *visit) hasRevocations() bool {
	return v.may(api.SessionsRead) && v.has("/v1/revocations", nil)
}
