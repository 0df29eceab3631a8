package grade

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// fewest is how many tokens there must be for an order among them to mean something: 12 random values rise by chance
// once in 479 million times.
const fewest = 12

// A window is a run of bytes of a view that is explained by something that can be predicted.
type window struct {
	from, to int
	what     string // "counter", or what kind of time
	time     bool
}

// A clock is a way in which times are written in tokens.
type clock struct {
	what  string
	width int // in bytes
	unit  time.Duration
	epoch int64 // where it begins, as Unix time in units
	shift int   // bits below it
}

var clocks = []clock{
	{"time in seconds (as in xid and ObjectID)", 4, time.Second, 0, 0},
	{"time in seconds (as in KSUID)", 4, time.Second, 1400000000, 0},
	{"time in milliseconds (as in ULID and UUIDv7)", 6, time.Millisecond, 0, 0},
	{"time in seconds", 8, time.Second, 0, 0},
	{"time in milliseconds", 8, time.Millisecond, 0, 0},
	{"time in microseconds", 8, time.Microsecond, 0, 0},
	{"time in nanoseconds", 8, time.Nanosecond, 0, 0},
	{"time of 100 nanoseconds (as in UUIDv1)", 8, 100 * time.Nanosecond, -122192928000000000, 0},
	{"time of a snowflake", 8, time.Millisecond, 1288834974657, 22},
	{"time of a snowflake", 8, time.Millisecond, 1420070400000, 22},
}

// maxColumns bounds the bytes of a view that are searched for structure.
const maxColumns = 512

// windows finds counters and times in the view.
func (v *view) windows(when []span) []window {
	var found []window
	n := min(len(v.rows[0]), maxColumns)
	for _, c := range clocks {
		for o := 0; o+c.width <= n; o++ {
			for _, little := range []bool{false, true} {
				if c.isTime(v.rows, o, little, when) && !overlaps(found, o, o+c.width) {
					found = append(found, window{o, o + c.width, c.what, true})
				}
			}
		}
	}
	if len(v.rows) < fewest {
		return found
	}
	for o := 0; o < n; o++ {
		if overlaps(found, o, o+1) || constant(v.rows, o) {
			continue
		}
		end := min(o+8, n)
		for _, w := range found {
			if w.from > o {
				end = min(end, w.from)
			}
		}
		if to := v.rises(o, end, false); to > o {
			found = append(found, window{o, to, "counter, or another number that rises", false})
		} else if to := v.rises(o, end, true); to > o {
			found = append(found, window{o, to, "counter with its low byte first", false})
		}
	}
	return found
}

// isTime reports whether the bytes at the offset are, in every row, the time at which the token was given out.
func (c *clock) isTime(rows [][]byte, offset int, little bool, when []span) bool {
	for i, row := range rows {
		var padded [8]byte
		b := row[offset : offset+c.width]
		if little {
			b = slices.Clone(b)
			slices.Reverse(b)
		}
		copy(padded[8-c.width:], b)
		raw := binary.BigEndian.Uint64(padded[:])
		if raw > math.MaxInt64 {
			return false
		}
		value := int64(raw>>c.shift) + c.epoch
		const slack = 2 * time.Second
		low, high := inUnits(when[i].from.Add(-slack), c.unit), inUnits(when[i].to.Add(slack), c.unit)
		if value < low || value > high {
			return false
		}
	}
	return true
}

// inUnits is the Unix time in units, without running over.
func inUnits(t time.Time, unit time.Duration) int64 {
	if unit == time.Second {
		return t.Unix()
	}
	return t.UnixNano() / int64(unit)
}

func overlaps(found []window, from, to int) bool {
	return slices.ContainsFunc(found, func(w window) bool { return from < w.to && w.from < to })
}

func constant(rows [][]byte, column int) bool {
	for _, r := range rows[1:] {
		if r[column] != rows[0][column] {
			return false
		}
	}
	return true
}

// rises reports where a number ends that begins at the offset and never falls from one token to the next, or as good as
// never; the offset itself: there is none. Of several ends it takes the first that tells the tokens as well apart as any:
// what follows may be chance.
func (v *view) rises(offset, end int, little bool) int {
	distinct := make(map[int]int)
	most := 0
	for to := offset + 1; to <= end; to++ {
		falls, kinds := 0, 1
		var last []byte
		for i, row := range v.rows {
			b := row[offset:to]
			if little {
				b = slices.Clone(b)
				slices.Reverse(b)
			}
			if i > 0 {
				switch bytes.Compare(last, b) {
				case 1:
					falls++
					kinds++
				case -1:
					kinds++
				}
			}
			last = b
		}
		if kinds >= 3 && (falls == 0 || len(v.rows) >= 100 && falls*50 <= len(v.rows) && falls*10 <= kinds) {
			distinct[to], most = kinds, max(most, kinds)
		}
	}
	for to := offset + 1; to <= end; to++ {
		if k := distinct[to]; k > 0 && k*10 >= most*9 {
			return to
		}
	}
	return offset
}

// decimalTimes looks for times that are written in decimal digits within the texts.
func decimalTimes(texts []string, when []span) string {
	for _, c := range []struct {
		what string
		n    int
		unit time.Duration
	}{{"seconds", 10, time.Second}, {"milliseconds", 13, time.Millisecond}, {"microseconds", 16, time.Microsecond}, {"nanoseconds", 19, time.Nanosecond}} {
		all := true
		for i, t := range texts {
			if !decimalTime(t, c.n, c.unit, when[i]) {
				all = false
				break
			}
		}
		if all {
			return fmt.Sprintf("time in %s, in decimal digits", c.what)
		}
	}
	return ""
}

func decimalTime(text string, n int, unit time.Duration, when span) bool {
	low, high := inUnits(when.from.Add(-2*time.Second), unit), inUnits(when.to.Add(2*time.Second), unit)
	for i := 0; i+n <= len(text); i++ {
		value := int64(0)
		ok := true
		for _, c := range []byte(text[i : i+n]) {
			if c < '0' || c > '9' {
				ok = false
				break
			}
			value = value*10 + int64(c-'0')
		}
		if ok && value >= low && value <= high {
			return true
		}
	}
	return false
}
