package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A chart is figures over time, drawn as bars or as lines. The same figures are in a table behind it.
type chart struct {
	ID, Title, Unit string
	Desc            string // what the picture shows, for who does not see it
	Top             string // what the highest line stands for
	From, To        string // the times at its ends
	Bars            []bar
	Lines           []line
	Legend          []string // of Lines
	Heads           []string // of the table behind the time
	Rows            []row
	Empty           bool // there was nothing at all
}

type bar struct {
	X, Y, W, H string
	Title      string
}

type line struct {
	Points string
	Class  string
}

// row is a row of the table behind a chart.
type row struct {
	At    time.Time
	Cells []string
}

// The size of a chart's drawing, in its own units.
const (
	chartWidth, chartHeight = 600, 120
)

// spans are the times that charts can show: how many seconds a bar stands for, and how many bars there are.
type spanOf struct {
	Name, Label string
	bar         time.Duration
	minutes     bool // made of the points of a minute
}

var spans = []spanOf{
	{"5m", "5 minutes", 5 * time.Second, false},
	{"1h", "1 hour", time.Minute, true},
	{"24h", "24 hours", 20 * time.Minute, true},
}

// sums adds up every n values, the last ones at the end. What is left over at the beginning is left out.
func sums(values []uint64, n int) []uint64 {
	out := make([]uint64, len(values)/n)
	at := len(values) - len(out)*n
	for i := range out {
		for range n {
			out[i] += values[at]
			at++
		}
	}
	return out
}

// peaks returns the greatest of every n values.
func peaks(values []float64, n int) []float64 {
	out := make([]float64, len(values)/n)
	at := len(values) - len(out)*n
	for i := range out {
		for range n {
			out[i] = max(out[i], values[at])
			at++
		}
	}
	return out
}

// bars draws counts. end is the time at the end of the last one.
func bars(id, title, unit string, values []uint64, step time.Duration, end time.Time) chart {
	c := chart{ID: id, Title: title, Unit: unit, Heads: []string{unit}}
	var most, total uint64
	for _, v := range values {
		most, total = max(most, v), total+v
	}
	c.Empty = total == 0
	top := niceTop(float64(most))
	c.Top = number(top)
	width := float64(chartWidth) / float64(max(1, len(values)))
	start := end.Add(-step * time.Duration(len(values)))
	for i, v := range values {
		at := start.Add(step * time.Duration(i))
		if v > 0 {
			h := max(2, float64(v)/top*chartHeight)
			c.Bars = append(c.Bars, bar{
				X: coord(float64(i)*width + width*0.12), Y: coord(chartHeight - h), W: coord(width * 0.76), H: coord(h),
				Title: axisTime(at, step) + ": " + thousands(v),
			})
			c.Rows = append(c.Rows, row{at, []string{thousands(v)}})
		}
	}
	c.ends(start, end, step)
	c.Desc = fmt.Sprintf("%s %s from %s to %s UTC, at most %s in %s.", thousands(total), unit, c.From, c.To, thousands(most), span(step))
	if c.Empty {
		c.Desc = fmt.Sprintf("No %s from %s to %s UTC.", unit, c.From, c.To)
	}
	return c
}

// lines draws several values over time, in milliseconds.
func lines(id, title string, names []string, values [][]float64, step time.Duration, end time.Time) chart {
	c := chart{ID: id, Title: title, Unit: "ms", Legend: names, Heads: names}
	n, most := 0, 0.0
	for _, vs := range values {
		n = max(n, len(vs))
		for _, v := range vs {
			most = max(most, v)
		}
	}
	c.Empty = most == 0
	top := niceTop(most)
	c.Top = number(top) + " ms"
	start := end.Add(-step * time.Duration(n))
	for k, vs := range values {
		var p []string
		for i, v := range vs {
			x := (float64(i) + 0.5) * chartWidth / float64(max(1, n))
			p = append(p, coord(x)+","+coord(chartHeight-v/top*chartHeight))
		}
		c.Lines = append(c.Lines, line{strings.Join(p, " "), "line-" + strconv.Itoa(k)})
	}
	for i := range n {
		r := row{At: start.Add(step * time.Duration(i))}
		some := false
		for _, vs := range values {
			some = some || vs[i] > 0
			r.Cells = append(r.Cells, number(vs[i])+" ms")
		}
		if some {
			c.Rows = append(c.Rows, r)
		}
	}
	c.ends(start, end, step)
	c.Desc = fmt.Sprintf("%s from %s to %s UTC; the highest is %s ms.", strings.Join(names, ", "), c.From, c.To, number(most))
	if c.Empty {
		c.Desc = fmt.Sprintf("Nothing was measured from %s to %s UTC.", c.From, c.To)
	}
	return c
}

func (c *chart) ends(start, end time.Time, step time.Duration) {
	c.From, c.To = axisTime(start, step), axisTime(end, step)
}

// Clock is the time of a row, as exact as the bars are wide.
func (c chart) Clock(at time.Time) string { return at.UTC().Format("15:04:05") }

func axisTime(t time.Time, step time.Duration) string {
	switch {
	case step < time.Minute:
		return t.UTC().Format("15:04:05")
	case step > time.Minute:
		return t.UTC().Format("Mon 15:04")
	}
	return t.UTC().Format("15:04")
}

// niceTop is the least of 1, 2, 5, 10, 20, … (and of their tenths) that is not under the value.
func niceTop(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5, 10} {
		if f*unit >= v {
			return f * unit
		}
	}
	return 10 * unit
}

func coord(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }

// number writes a figure with three digits at most behind the point.
func number(f float64) string {
	if f >= 100 || f == math.Trunc(f) {
		return thousands(int64(math.Round(f)))
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}
