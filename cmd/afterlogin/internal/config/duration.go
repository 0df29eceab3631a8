package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is a time.Duration that can also be written in days, as in 30d or 1d12h.
type Duration time.Duration

const day = 24 * time.Hour

// ParseDuration reads a duration: numbers with the units d, h, m, s, ms, us and ns, as in 30d, 1h30m or 500ms. It is
// never negative. Days stand first.
func ParseDuration(text string) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		if _, err := strconv.ParseFloat(text, 64); err == nil && text != "0" {
			return 0, fmt.Errorf("%q has no unit: write 30s, 15m, 12h or 30d", text)
		}
		return 0, fmt.Errorf("%q is not a duration: write 30s, 15m, 12h or 30d", clip(text))
	}
	if text == "" || len(text) > 64 || strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		return bad()
	}
	var days time.Duration
	rest := text
	if head, tail, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 32)
		if err != nil || n > math.MaxInt64/uint64(day)/2 {
			return bad()
		}
		days, rest = time.Duration(n)*day, tail
		if rest == "" {
			return days, nil
		}
		if rest[0] < '0' || rest[0] > '9' { // 1d-2h
			return bad()
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64/2 {
		return bad()
	}
	return days + d, nil
}

// clip shortens a text from outside for an error message.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// String writes the duration as ParseDuration reads it, with the largest units first and nothing that is zero.
func (d Duration) String() string {
	t := time.Duration(d)
	var b strings.Builder
	if t >= day {
		fmt.Fprintf(&b, "%dd", t/day)
		if t %= day; t == 0 {
			return b.String()
		}
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	b.WriteString(s)
	return b.String()
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	t, err := ParseDuration(string(b))
	*d = Duration(t)
	return err
}
