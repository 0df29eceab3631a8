// Command bench measures afterlogin beside what it is compared with, both sides in one run: rounds of the one and the
// other take turns, since the machine is never equally fast for long. What counts is the ratio.
//
//	go run ./bench [-run REGEX] [-rounds N] [-json]
//
// It prints a line for each comparison: its name, the ratio (median, least, greatest of the rounds), the target, and ok or
// short. It exits with 1 when a target is missed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == referenceArg {
		os.Exit(serveReference(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// comparison is one line of the result.
type comparison struct {
	name string
	// what says what the two sides do.
	what string
	// set prepares both sides and returns a function for each: it runs one round and returns a rate (more is better).
	// With a nil reference the rate itself is compared with the target.
	set func() (ours, reference func() (float64, error), done func(), err error)
	// target is the least ratio of the rates, ours to the reference's; with most, the greatest value of a single figure.
	target float64
	most   bool
	unit   string // of a single figure
}

// result is one line, for -json.
type result struct {
	Name      string  `json:"name"`
	What      string  `json:"what"`
	Ours      float64 `json:"ours"`                // median of the rounds
	Reference float64 `json:"reference,omitempty"` // median of the rounds
	Median    float64 `json:"median"`
	Least     float64 `json:"least"`
	Greatest  float64 `json:"greatest"`
	Target    float64 `json:"target"`
	OK        bool    `json:"ok"`
}

func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(errs)
	pattern := flags.String("run", "", "only the comparisons whose name matches")
	rounds := flags.Int("rounds", 7, "how many rounds each side runs, in turns")
	asJSON := flags.Bool("json", false, "print JSON, a line each")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	re, err := regexp.Compile(*pattern)
	if err != nil || *rounds < 1 || flags.NArg() > 0 {
		fmt.Fprintln(errs, "bench: -run takes a regular expression, -rounds a number above 0, and nothing else is taken")
		return 2
	}
	code := 0
	if !*asJSON {
		fmt.Fprintf(out, "%-30s %22s  %8s   %s\n", "comparison", "ratio (least–greatest)", "target", "")
	}
	for _, c := range comparisons() {
		if !re.MatchString(c.name) {
			continue
		}
		r, err := measure(c, *rounds)
		if s := (*skipped)(nil); errors.As(err, &s) {
			fmt.Fprintf(errs, "bench: %s: not measured: %s\n", c.name, s.why)
			continue
		}
		if err != nil {
			fmt.Fprintf(errs, "bench: %s: %v\n", c.name, err)
			return 1
		}
		if !r.OK {
			code = 1
		}
		show(out, c, r, *asJSON)
	}
	return code
}

// skipped is the error of a comparison with something that is not to be had here.
type skipped struct{ why string }

func (s *skipped) Error() string { return s.why }

func comparisons() []comparison {
	return slices.Concat(validateComparisons(), jwtComparisons(), httpComparisons(), durableComparisons(), introspectComparisons(), gatewayComparisons(), sharedComparisons(), sizeComparisons(), millionComparisons())
}

func measure(c comparison, rounds int) (result, error) {
	ours, reference, done, err := c.set()
	if err != nil {
		return result{}, err
	}
	if done != nil {
		defer done()
	}
	var as, bs, ratios []float64
	for i := range rounds {
		first, second := ours, reference
		if i%2 == 1 && reference != nil { // neither side is always the one that finds the machine warm
			first, second = reference, ours
		}
		a, err := first()
		if err != nil {
			return result{}, err
		}
		if reference == nil {
			as, ratios = append(as, a), append(ratios, a)
			continue
		}
		b, err := second()
		if err != nil {
			return result{}, err
		}
		if i%2 == 1 {
			a, b = b, a
		}
		as, bs, ratios = append(as, a), append(bs, b), append(ratios, a/b)
	}
	r := result{Name: c.name, What: c.what, Ours: median(as), Target: c.target,
		Median: median(ratios), Least: slices.Min(ratios), Greatest: slices.Max(ratios)}
	if bs != nil {
		r.Reference = median(bs)
	}
	r.OK = r.Median >= c.target
	if c.most {
		r.OK = r.Median <= c.target
	}
	return r, nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func show(out io.Writer, c comparison, r result, asJSON bool) {
	if asJSON {
		b, err := json.Marshal(r)
		if err != nil {
			panic(err) // plain numbers and texts
		}
		fmt.Fprintf(out, "%s\n", b)
		return
	}
	word, sign := "ok", "≥"
	if !r.OK {
		word = "short"
	}
	if c.most {
		sign = "≤"
	}
	figure := fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Least, r.Greatest)
	if c.unit != "" {
		figure = fmt.Sprintf("%.3g (%.3g–%.3g) %s", r.Median, r.Least, r.Greatest, c.unit)
	}
	fmt.Fprintf(out, "%-30s %22s  %s %6.4g   %-5s  %s\n", r.Name, figure, sign, c.target, word, detail(c, r))
}

func detail(c comparison, r result) string {
	if r.Reference == 0 {
		return c.what
	}
	return fmt.Sprintf("%s (%.3g/s and %.3g/s)", c.what, r.Ours, r.Reference)
}
