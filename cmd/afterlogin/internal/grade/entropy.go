package grade

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// An analysis is what tokens, in the order in which they were given out, show.
type analysis struct {
	Samples  int
	Shortest int // characters
	Longest  int
	How      []string // how each part is written
	Repeats  int      // tokens that were given out before
	Bits     float64  // at most so many bits of a token are chance
	Capped   bool     // the samples are too few to show more than that number
	Uneven   bool     // bits are one more or less often than chance has it
	Counters []string
	Times    []string
	UUID     byte // version, as its digit; 0: none
}

// analyse looks at the tokens; when says when each was given out. Tokens are at least two.
func analyse(tokens []string, when []span) *analysis {
	a := &analysis{Samples: len(tokens), Shortest: math.MaxInt}
	seen := make(map[string]int)
	pairs := 0
	cutOff := make([]string, len(tokens))
	for i, t := range tokens {
		a.Shortest, a.Longest = min(a.Shortest, len(t)), max(a.Longest, len(t))
		pairs += seen[t]
		if seen[t]++; seen[t] > 1 {
			a.Repeats++
		}
		cutOff[i] = t[:min(len(t), maxToken)]
	}
	a.parts(unescaped(cutOff), when, 0)
	if pairs > 0 {
		// Of n(n-1)/2 pairs, one in 2^bits is equal if bits of each token are chance (the birthday bound, read backwards).
		all := float64(len(tokens)) * float64(len(tokens)-1) / 2
		if b := math.Log2(all / float64(pairs)); b < a.Bits {
			a.Bits, a.Capped = b, false
		}
	}
	return a
}

func (a *analysis) parts(tokens []string, when []span, depth int) {
	if every(tokens, func(t string) bool { return t == "" }) {
		return
	}
	for _, texts := range split(tokens) {
		if every(texts, func(t string) bool { return t == texts[0] }) {
			continue // constant
		}
		p := readPart(texts)
		if inner := p.inner(); inner != nil && depth < 2 {
			a.How = append(a.How, p.how+" of text")
			a.parts(inner, when, depth+1)
			continue
		}
		a.How = append(a.How, p.how)
		if strings.HasPrefix(p.how, "UUID") {
			a.UUID = p.how[len(p.how)-1]
		}
		a.part(p, when)
	}
}

// part adds what one part shows. Of several readings the one counts in which there is a time, or else the first in which
// something rises: the others show the same less clearly.
func (a *analysis) part(p *part, when []span) {
	best := -1
	var windows []window
	for i := range p.views {
		ws := p.views[i].windows(when)
		timed := slices.ContainsFunc(ws, func(w window) bool { return w.time })
		if timed || len(ws) > 0 && best < 0 {
			best, windows = i, ws
		}
		if timed {
			break
		}
	}
	for _, w := range windows {
		if note := fmt.Sprintf("%s in bytes %d to %d (%s)", w.what, w.from+1, w.to, p.views[best].how); w.time {
			a.Times = append(a.Times, note)
		} else {
			a.Counters = append(a.Counters, note)
		}
	}
	var b float64
	if p.exact {
		var explained []window
		if best == 0 {
			explained = windows
		}
		b = a.exactBits(p.views[0].rows, explained)
	} else {
		b = a.symbolBits(p)
	}
	if best > 0 || best == 0 && !p.exact {
		b = math.Min(b, a.exactBits(p.views[best].rows, windows))
	}
	if best < 0 {
		if t := decimalTimes(p.texts, when); t != "" {
			a.Times = append(a.Times, t)
			b = max(0, b-64)
		}
	}
	a.Bits += b
}

// enough is how many tokens there must be for a bit that never changes to count for nothing: of 256 random bits one is the
// same in 24 tokens once in 30,000 times.
const enough = 24

// exactBits estimates the bits of chance in rows whose bits are the token's. It is an upper estimate: bits that are uneven
// count for what their own frequency allows, linear dependencies among them (repeats, checksums, shift registers) are
// taken off, and so is what DEFLATE finds.
func (a *analysis) exactBits(rows [][]byte, explained []window) float64 {
	n := len(rows)
	var ones []int            // of each bit that varies
	kept := make([][]byte, n) // the columns that vary and are not explained, packed
	width := 0
	for c := range rows[0] {
		if overlaps(explained, c, c+1) || n >= fewest && constant(rows, c) {
			continue
		}
		if width == maxColumns {
			break // that is enough for anybody, and bounds the work
		}
		for i := range rows {
			kept[i] = append(kept[i], rows[i][c])
		}
		width++
		for bit := range 8 {
			count := 0
			for i := range rows {
				count += int(rows[i][c] >> bit & 1)
			}
			switch {
			case count > 0 && count < n:
				ones = append(ones, count)
			case n < enough:
				ones = append(ones, n/2) // it may be all the same by chance
			}
		}
	}
	if width == 0 {
		return 0
	}
	sum, uneven := frequencies(ones, n)
	a.Uneven = a.Uneven || uneven
	sum = a.dependencies(kept, len(ones), sum)
	if c := compressed(kept); c < 0.95*sum {
		sum = c
	}
	return sum
}

// surprising is how many standard deviations are not chance any more.
const surprising = 6

// frequencies adds up what bits count for, by how often each was one of so many times, and reports whether they are uneven. Bits that stand out by themselves count for their min-entropy, -log2(max(p, 1-p)).
// The others together are put to a chi-square test, which sees a small bias that all of them have: if it fails each of
// them counts for its min-entropy, and otherwise for one bit, since all that is left is what chance does to samples.
func frequencies(ones []int, n int) (sum float64, uneven bool) {
	var rest []int
	chi := 0.0
	for _, k := range ones {
		z := (float64(k) - float64(n)/2) / (math.Sqrt(float64(n)) / 2)
		if math.Abs(z) >= surprising {
			sum, uneven = sum+minEntropy(k, n), true
			continue
		}
		chi += z * z
		rest = append(rest, k)
	}
	if chiDeviations(chi, len(rest)) < surprising {
		return sum + float64(len(rest)), uneven
	}
	for _, k := range rest {
		sum += minEntropy(k, n)
	}
	return sum, true
}

func minEntropy(ones, n int) float64 { return -math.Log2(float64(max(ones, n-ones)) / float64(n)) }

// chiDeviations is how many standard deviations a chi-square of so many degrees of freedom is off, by the cube root that
// Wilson and Hilferty made it normal with.
func chiDeviations(chi float64, degrees int) float64 {
	if degrees == 0 {
		return 0
	}
	v := 2 / (9 * float64(degrees))
	return (math.Cbrt(chi/float64(degrees)) - (1 - v)) / math.Sqrt(v)
}

// dependencies takes linear dependencies over GF(2) off the sum, as far as so few rows show them, and remembers if they
// are too few.
func (a *analysis) dependencies(rows [][]byte, columns int, sum float64) float64 {
	rank := rank2(rows)
	usable := len(rows) - 1
	switch {
	case usable >= columns+20: // a random matrix has full rank but once in a million times
		sum -= float64(columns - rank)
	case min(usable, columns)-rank > 8:
		sum = math.Min(sum, float64(rank))
	case usable < columns:
		a.Capped = true
	}
	return sum
}

// rank2 is the rank over GF(2) of the differences to the first row.
func rank2(rows [][]byte) int {
	if len(rows) == 0 || len(rows[0]) == 0 {
		return 0
	}
	words := (len(rows[0]) + 7) / 8
	pivots := make(map[int][]uint64)
	for _, row := range rows[1:] {
		v := make([]uint64, words)
		for i, b := range row {
			v[i/8] |= uint64(b^rows[0][i]) << (i % 8 * 8)
		}
		for w := 0; w < words; {
			if v[w] == 0 {
				w++
				continue
			}
			at := w*64 + bits.TrailingZeros64(v[w])
			p, ok := pivots[at]
			if !ok {
				pivots[at] = v
				break
			}
			for i := w; i < words; i++ {
				v[i] ^= p[i]
			}
		}
	}
	return len(pivots)
}

// compressed is how many bits a row takes when DEFLATE has had all of them, row by row and column by column: never less
// than what is in it.
func compressed(rows [][]byte) float64 {
	if len(rows) < fewest || len(rows[0]) == 0 {
		return math.Inf(1)
	}
	best := math.Inf(1)
	for _, byColumn := range []bool{false, true} {
		var out bytes.Buffer
		z, err := flate.NewWriter(&out, flate.BestCompression)
		if err != nil {
			return best
		}
		if byColumn {
			column := make([]byte, len(rows))
			for c := range rows[0] {
				for i := range rows {
					column[i] = rows[i][c]
				}
				z.Write(column) // a bytes.Buffer does not fail
			}
		} else {
			for _, r := range rows {
				z.Write(r)
			}
		}
		z.Close()
		best = math.Min(best, float64(8*out.Len())/float64(len(rows)))
	}
	return best
}

// symbolBits estimates the bits of chance in texts by their characters: a position counts for all that the alphabet
// allows if its characters are evenly spread, and else for their entropy, corrected for few samples (Miller and Madow).
func (a *analysis) symbolBits(p *part) float64 {
	n := len(p.texts)
	sum, columns := 0.0, 0
	kept := make([][]byte, n)
	index := p.index()
	for c, full := range p.symbol[:min(len(p.symbol), maxColumns)] {
		var count [256]int
		kinds := 0
		for i, t := range p.texts {
			if count[t[c]]++; count[t[c]] == 1 {
				kinds++
			}
			kept[i] = append(kept[i], index[t[c]])
		}
		if kinds == 1 && n >= fewest { // fewer are often all the same, which shows nothing
			continue
		}
		columns++
		size := math.Round(math.Exp2(full))
		expected, chi, h := float64(n)/size, 0.0, 0.0
		for _, k := range count {
			if k > 0 {
				chi += float64(k*k) / expected
				h -= float64(k) / float64(n) * math.Log2(float64(k)/float64(n))
			}
		}
		chi -= float64(n)
		if n < fewest || chi <= size+8*math.Sqrt(2*size) {
			sum += full
		} else {
			sum += math.Min(full, h+float64(kinds-1)/(2*float64(n)*math.Ln2))
		}
	}
	if columns == 0 {
		return 0
	}
	// The bits of the characters' numbers are not even, but their dependencies are those of the characters: numbers
	// without a gap, since the codes of some alphabets have bits that depend on each other.
	varying := 0
	for c := range kept[0] {
		for bit := range 8 {
			for i := range kept {
				if (kept[i][c]^kept[0][c])>>bit&1 != 0 {
					varying++
					break
				}
			}
		}
	}
	r := rank2(kept)
	usable := n - 1
	switch {
	case usable >= 2*varying && r < varying:
		sum -= float64(varying - r)
	case min(usable, varying)-r > 8+varying/4:
		sum = math.Min(sum, float64(r))
	case float64(usable) < sum:
		a.Capped = true
	}
	if c := compressed(kept); c < 0.9*sum {
		sum = c
	}
	return math.Max(sum, 0)
}

// index numbers the characters that occur, in their order.
func (p *part) index() (index [256]byte) {
	var seen [256]bool
	for _, t := range p.texts {
		for _, c := range []byte(t) {
			seen[c] = true
		}
	}
	next := byte(0)
	for c, is := range seen {
		if index[c] = next; is {
			next++
		}
	}
	return index
}
