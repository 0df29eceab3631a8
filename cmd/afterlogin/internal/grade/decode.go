package grade

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// maxToken is the longest token that is analysed, in bytes; browsers keep cookies of 4,096.
const maxToken = 8192

// A view is one way to read a part of all tokens as bytes, in the order in which they were given out. All rows are of
// the same length.
type view struct {
	how  string
	rows [][]byte
}

// A part is a piece of every token: the whole, or what stands between separators.
type part struct {
	texts  []string
	how    string    // what its characters look like
	views  []view    // the first is for counting bits, if exact; all are for finding structure
	exact  bool      // whether every bit of the first view is a bit of the token
	symbol []float64 // else: bits that one character can hold, for each position
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// split cuts the tokens into parts: at separators that stand in all of them at the same place, or equally often.
func split(tokens []string) [][]string {
	if every(tokens, uuidForm.MatchString) {
		return [][]string{tokens}
	}
	for _, sep := range ".:|~$,;*!%&= " {
		if sep == '=' && every(tokens, func(t string) bool { return strings.IndexByte(strings.TrimRight(t, "="), '=') < 0 }) {
			continue // padding
		}
		if parts := cut(tokens, string(sep), 1); parts != nil {
			return parts
		}
	}
	for _, sep := range "-_" {
		// Both are characters of base64url, so that chance puts some of them into a random token.
		if parts := cut(tokens, string(sep), 12); parts != nil {
			return parts
		}
	}
	if prefix := commonPrefix(tokens); prefix != "" {
		if i := strings.LastIndexAny(prefix, "-_."); i >= 0 {
			rest := make([]string, len(tokens))
			for j, t := range tokens {
				rest[j] = t[i+1:]
			}
			if rest[0] != "" {
				return [][]string{rest}
			}
		}
	}
	return [][]string{tokens}
}

func cut(tokens []string, sep string, least int) [][]string {
	if len(tokens) < least {
		return nil
	}
	n := strings.Count(tokens[0], sep)
	if n == 0 || n > 16 || !every(tokens, func(t string) bool { return strings.Count(t, sep) == n }) {
		return nil
	}
	columns := make([][]string, n+1)
	for _, t := range tokens {
		for i, p := range strings.Split(t, sep) {
			columns[i] = append(columns[i], p)
		}
	}
	var parts [][]string
	for _, c := range columns {
		parts = append(parts, split(c)...)
	}
	return parts
}

func commonPrefix(tokens []string) string {
	prefix := tokens[0]
	for _, t := range tokens[1:] {
		n := 0
		for n < len(prefix) && n < len(t) && prefix[n] == t[n] {
			n++
		}
		prefix = prefix[:n]
	}
	return prefix
}

func every(texts []string, is func(string) bool) bool {
	for _, t := range texts {
		if !is(t) {
			return false
		}
	}
	return true
}

func only(alphabet string) func(string) bool {
	return func(s string) bool { return s != "" && strings.Trim(s, alphabet) == "" }
}

const (
	digits   = "0123456789"
	lowerHex = digits + "abcdef"
	upperHex = digits + "ABCDEF"
	lower    = "abcdefghijklmnopqrstuvwxyz"
	upper    = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters  = upper + lower
	base62   = digits + upper + lower
	crock    = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

var (
	crockford = base32.NewEncoding(crock).WithPadding(base32.NoPadding)
	hex32     = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
	plain32   = base32.StdEncoding.WithPadding(base32.NoPadding)
)

// readPart finds out how the texts are written.
func readPart(texts []string) *part {
	p := &part{texts: texts}
	sameLength := every(texts, func(t string) bool { return len(t) == len(texts[0]) })
	chars := 0
	for _, t := range texts {
		chars += len(t)
	}
	add := func(how string, decode func(string) ([]byte, error)) bool {
		rows := make([][]byte, len(texts))
		n := math.MaxInt
		for i, t := range texts {
			b, err := decode(t)
			if err != nil {
				return false
			}
			rows[i], n = b, min(n, len(b))
		}
		for i := range rows {
			rows[i] = rows[i][:n]
		}
		if n > 0 {
			p.views = append(p.views, view{how, rows})
		}
		return n > 0
	}
	switch {
	case every(texts, uuidForm.MatchString):
		p.exact = add("UUID", func(t string) ([]byte, error) {
			b, err := hex.DecodeString(strings.ReplaceAll(t, "-", ""))
			if err == nil && b[6]>>4 == 1 { // the time's high part first, as in version 6, so that it rises
				b = slices.Concat(b[6:8], b[4:6], b[0:4], b[8:])
				b[0] &= 0x0f
			}
			return b, err
		})
		p.how = "UUID version " + string(texts[0][14])
	case every(texts, only(digits)):
		p.how = "decimal digits"
		width := 0
		for _, t := range texts {
			width = max(width, len(t))
		}
		add("number", number(digits, width))
		p.symbols(texts, digits)
	case sameLength && (every(texts, only(lowerHex)) || every(texts, only(upperHex))):
		p.how = "hexadecimal"
		p.exact = add("hexadecimal", func(t string) ([]byte, error) { return hex.DecodeString(strings.Repeat("0", len(t)%2) + t) })
	case sameLength && len(texts[0]) == 26 && every(texts, only(crock)) && every(texts, func(t string) bool { return t[0] <= '7' }):
		p.how = "base32 (Crockford), as a ULID"
		p.exact = add(p.how, func(t string) ([]byte, error) {
			b, err := crockford.DecodeString("000000" + t) // 160 bits, the first 32 of them zero
			if err != nil {
				return nil, err
			}
			return b[4:], nil
		})
	case sameLength && len(texts[0]) == 20 && chars >= 100 && every(texts, only(digits+lower[:22])):
		p.how = "base32hex, as an xid"
		p.exact = add(p.how, hex32.DecodeString)
	case sameLength && chars >= 500 && every(texts, only(upper+"234567")):
		p.how = "base32"
		p.exact = add(p.how, plain32.DecodeString)
	default:
		p.sixtyFour(texts, chars, sameLength, add)
	}
	if p.exact {
		if rows := p.views[0].rows; printableRows(rows) {
			p.exact = p.how == "hexadecimal" // text within: its bytes are no bits of chance
		}
	}
	return p
}

// sixtyFour reads base64, base64url, and what only has letters and digits.
func (p *part) sixtyFour(texts []string, chars int, sameLength bool, add func(string, func(string) ([]byte, error)) bool) {
	trimmed := func(t string) string { return strings.TrimRight(t, "=") }
	fits := func(alphabet string) bool {
		return every(texts, func(t string) bool { t = trimmed(t); return only(alphabet)(t) && len(t)%4 != 1 })
	}
	url, std := fits(base62+"-_"), fits(base62+"+/")
	special := strings.ContainsAny(strings.Join(texts, ""), "-_+/=")
	switch {
	case (url || std) && (special || chars < 500):
		encoding, name := base64.RawURLEncoding, "base64url"
		if !url {
			encoding, name = base64.RawStdEncoding, "base64"
		}
		ok := add(name, func(t string) ([]byte, error) { return encoding.DecodeString(trimmed(t)) })
		// Few characters, and all of them letters and digits: that may be either, and is counted as the lesser.
		if p.how = name; special && sameLength {
			p.exact = ok
		} else {
			p.symbols(texts, base62+"-_")
		}
	case every(texts, only(base62)):
		if p.how = "letters and digits"; url {
			add("base64", func(t string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(t) })
		}
		if sameLength && len(texts[0]) <= 64 {
			add("base62 number", number(base62, len(texts[0])))
			if every(texts, only(digits+lower)) {
				add("base36 number", number(digits+lower, len(texts[0])))
			}
		}
		p.symbols(texts, base62)
	default:
		p.how = "text"
		p.symbols(texts, "")
	}
	add("characters", func(t string) ([]byte, error) { return []byte(t), nil })
}

// number reads a number written with the digits, of so many of them, as bytes of a fixed length.
func number(alphabet string, width int) func(string) ([]byte, error) {
	size := max(8, int(math.Ceil(float64(width)*math.Log2(float64(len(alphabet)))/8))) // 8: room for a time
	return func(t string) ([]byte, error) {
		if len(t) > 64 {
			return nil, fmt.Errorf("too long")
		}
		n, base := new(big.Int), big.NewInt(int64(len(alphabet)))
		for _, c := range []byte(t) {
			n.Mul(n, base).Add(n, big.NewInt(int64(strings.IndexByte(alphabet, c))))
		}
		return n.FillBytes(make([]byte, size)), nil
	}
}

// symbols prepares the count by characters: each position holds what the alphabet that is seen allows.
func (p *part) symbols(texts []string, alphabet string) {
	n := math.MaxInt
	for _, t := range texts {
		n = min(n, len(t))
	}
	var seen [256]bool
	kinds := map[string]bool{}
	size, count := 0, 0
	for _, t := range texts {
		for _, c := range []byte(t) {
			if count++; !seen[c] {
				seen[c] = true
				size++
			}
			for _, class := range []string{digits, lower, upper} {
				if strings.IndexByte(class, c) >= 0 {
					kinds[class] = true
				}
			}
		}
	}
	if count < 20*size { // too few to have shown the whole alphabet
		whole := 0
		for class := range kinds {
			whole += len(class)
		}
		size = max(size, whole)
	}
	for range n {
		p.symbol = append(p.symbol, math.Log2(float64(max(size, 1))))
	}
}

// printableRows reports whether nearly all bytes are text.
func printableRows(rows [][]byte) bool {
	text, all := 0, 0
	for _, r := range rows {
		for _, c := range r {
			if all++; c >= ' ' && c <= '~' {
				text++
			}
		}
	}
	return all > 0 && len(rows[0]) >= 4 && text >= all*98/100
}

// inner returns the texts within the part, if it is text that was encoded; nil: it is not.
func (p *part) inner() []string {
	if every(p.texts, only(digits)) {
		return nil // a number, and not hexadecimal that happens to be text
	}
	trimmed := func(t string) string { return strings.TrimRight(t, "=") }
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString,
		func(t string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(trimmed(t)) },
		func(t string) ([]byte, error) { return base64.RawStdEncoding.DecodeString(trimmed(t)) },
	} {
		texts := make([]string, 0, len(p.texts))
		for _, t := range p.texts {
			b, err := decode(t)
			if err != nil || len(b) < 3 || bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r > '~' }) {
				break
			}
			texts = append(texts, string(b))
		}
		if len(texts) == len(p.texts) {
			return texts
		}
	}
	return nil
}

// unescaped is what the tokens are without the percent signs with which some frameworks put them into cookies.
func unescaped(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		var err error
		if out[i], err = url.PathUnescape(t); err != nil || !strings.Contains(t, "%") {
			return tokens
		}
	}
	return out
}
