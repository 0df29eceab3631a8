package demo

import (
	"fmt"
	"io"
	"time"
)

// A timeline tells what happens, a line for each thing, with the time of day in front.
type timeline struct {
	out  io.Writer
	last string // what the last line said, so that it is not said again
}

// once says a line unless it was the last one that was said.
func (t *timeline) once(format string, args ...any) {
	if line := fmt.Sprintf(format, args...); line != t.last {
		t.say("", "", "%s", line)
	}
}

// say prints a line of the timeline, with the time of now; not a request and its outcome that were said just before.
func (t *timeline) say(what, status, format string, args ...any) {
	t.print(time.Now(), what, status, format, args...)
}

func (t *timeline) print(at time.Time, what, status, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	if what+status+line == t.last {
		return
	}
	t.last = what + status + line
	if what == "" {
		fmt.Fprintf(t.out, "%s  %s\n", clock(at), line)
		return
	}
	fmt.Fprintf(t.out, "%s  %-44s %s  %s\n", clock(at), what, status, line)
}

// clock is a time of day, for a line of the timeline.
func clock(t time.Time) string { return t.Local().Format("15:04:05") }
