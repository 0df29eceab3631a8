package query

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/inurl"
)

// An Error says what is wrong with a query, where, and what to do about it. It repeats nothing that looks like a token.
type Error struct {
	Column  int // in characters, from 1; one behind the end if something is missing
	Message string
	Hint    string
}

// Error returns one line.
func (e *Error) Error() string {
	text := fmt.Sprintf("column %d: %s", e.Column, e.Message)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// likeToken matches what could be a token or a large part of one, and likeJWT a signed one.
var (
	likeToken = regexp.MustCompile(`(al[a-z]|cs)_[A-Za-z0-9_-]{30,}`)
	likeJWT   = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+`)
)

// Parse reads a query: terms with spaces, or "and", between them. The empty text is the zero Query. Its error is an
// *Error.
func Parse(text string) (*Query, error) {
	p := &parser{text: text}
	switch {
	case len(text) > MaxBytes:
		return nil, p.fault(MaxBytes, "the query is over %d bytes", MaxBytes).hint("make two of it")
	case !utf8.ValidString(text):
		return nil, p.fault(0, "the query is no UTF-8 text")
	}
	if len(inurl.Find(text, "skractoj")) > 0 {
		return nil, p.fault(0, "there is a token in the query").hint("queries stand in logs: take the token for lost, and end its session by its id")
	}
	if loc := likeToken.FindStringIndex(text); loc != nil {
		return nil, p.fault(loc[0], "this looks like a token").hint("queries stand in logs: look for a session by its subject, or by its id")
	}
	if loc := likeJWT.FindStringIndex(text); loc != nil {
		return nil, p.fault(loc[0], "this looks like a token").hint("queries stand in logs: look for a session by its subject, or by its id")
	}
	q := &Query{}
	for {
		p.space()
		if p.at == len(p.text) {
			break
		}
		if len(q.terms) == MaxTerms {
			return nil, p.fault(p.at, "the query has over %d terms", MaxTerms).hint("make two of it")
		}
		if start := p.at; len(q.terms) > 0 && strings.EqualFold(p.word(), "and") {
			p.space()
			if p.at == len(p.text) {
				return nil, p.fault(p.at, "a term is missing behind \"and\"").hint("write it, or leave \"and\" away")
			}
		} else {
			p.at = start
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		q.terms = append(q.terms, t)
		q.over = q.over || t.Field == State || t.Field == Why
	}
	var parts []string
	for i := range q.terms {
		parts = append(parts, q.terms[i].String())
	}
	q.text = strings.Join(parts, " ")
	if len(q.text) > MaxBytes { // it must be readable again
		return nil, p.fault(len(text), "the query is over %d bytes when its times are written out", MaxBytes).hint("make two of it")
	}
	return q, nil
}

type parser struct {
	text string
	at   int
}

// fault makes an error at a place in the text.
func (p *parser) fault(at int, format string, args ...any) *Error {
	return &Error{Column: utf8.RuneCountInString(p.text[:min(at, len(p.text))]) + 1, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (p *parser) space() {
	for p.at < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		if !unicode.IsSpace(r) {
			return
		}
		p.at += n
	}
}

// word reads letters, digits and _.
func (p *parser) word() string {
	start := p.at
	for p.at < len(p.text) {
		c := p.text[p.at]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			break
		}
		p.at++
	}
	return p.text[start:p.at]
}

// rest returns what stands at the place up to the next space, for a message.
func (p *parser) rest(at int) string {
	s := p.text[at:]
	if i := strings.IndexFunc(s, unicode.IsSpace); i >= 0 {
		s = s[:i]
	}
	return clip(s)
}

func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

func (p *parser) term() (Term, error) {
	start := p.at
	name := p.word()
	if name == "" {
		e := p.fault(start, "%q does not begin a term", p.rest(start))
		if strings.ContainsAny(p.text[start:start+1], "()|") {
			return Term{}, e.hint("all terms must hold, and there is no other way to join them: write policy in browser,remember, or make two queries")
		}
		return Term{}, e.hint("a term is a field, an operation and a value, as in %s", fields[0].like)
	}
	known := slices.IndexFunc(fields, func(f struct {
		field Field
		shape shape
		words []string
		like  string
	}) bool {
		return strings.EqualFold(string(f.field), name)
	})
	if known < 0 {
		return Term{}, p.noField(start, name)
	}
	f := &fields[known]
	t := Term{Field: f.field, shape: f.shape}
	p.space()
	place := p.at
	var err error
	if t.Op, err = p.operation(f.like); err != nil {
		return Term{}, err
	}
	switch timed := t.Op == Before || t.Op == After; {
	case timed && f.shape != isTime:
		return Term{}, p.fault(place, "%s is no time: it cannot be before or after", f.field).hint("write %s", f.like)
	case f.shape == isTime && !timed && (f.field != Expires || t.Op == In || t.Op == NotIn):
		return Term{}, p.fault(place, "%s is compared with < (before) and > (after)", f.field).hint("write %s", f.like)
	}
	for {
		p.space()
		place = p.at
		text, quoted, star, err := p.value(t.Op == In || t.Op == NotIn, f.like)
		if err != nil {
			return Term{}, err
		}
		v, fault := f.shape.read(&t, text, quoted, star, f.words, f.like)
		if fault != nil {
			fault.Column = p.fault(place, "").Column
			return Term{}, fault
		}
		t.Values = append(t.Values, v)
		if t.Op != In && t.Op != NotIn {
			return t, nil
		}
		end := p.at
		p.space()
		if p.at == len(p.text) || p.text[p.at] != ',' {
			p.at = end
			return t, nil
		}
		if p.at++; len(t.Values) == MaxValues {
			return Term{}, p.fault(p.at, "over %d values", MaxValues).hint("make two queries of it")
		}
	}
}

func (p *parser) noField(start int, name string) error {
	switch strings.ToLower(name) {
	case "or":
		return p.fault(start, "there is no \"or\": all terms must hold").hint("write policy in browser,remember, or make two queries")
	case "not":
		return p.fault(start, "\"not\" stands between a field and \"in\"").hint("write kind!=api_key, or ip not in 10.0.0.0/8")
	case "and":
		return p.fault(start, "a term is missing before \"and\"").hint("write it, or leave \"and\" away")
	case "id":
		return p.fault(start, "there is no field \"id\"").hint("show a session by its id instead: afterlogin sessions show ses_…")
	}
	p.space()
	e := p.fault(start, "there is no field %q", clip(name))
	if p.at == len(p.text) || !strings.ContainsAny(p.text[p.at:p.at+1], "=!<>") {
		if near := config.Nearest(name, Fields()); near == "" {
			return e.hint("a term is a field, an operation and a value: subject=%s?", clip(name))
		}
	}
	if near := config.Nearest(name, Fields()); near != "" {
		return e.hint("did you mean %s?", near)
	}
	for word, meant := range map[string]Field{
		"user": Subject, "sub": Subject, "app": Client, "address": IP, "addr": IP, "browser": Device, "agent": Device, "user_agent": Device,
		"reason": Why, "amr": Method, "seen": LastSeen, "used": LastSeen, "status": State, "type": Kind, "from": IP, "label": Name, "idle": LastSeen, "ends": Expires,
	} {
		if strings.EqualFold(word, name) {
			return e.hint("did you mean %s?", meant)
		}
	}
	return e.hint("known are %s", strings.Join(Fields(), ", "))
}

func (p *parser) operation(like string) (Op, error) {
	start := p.at
	if p.at == len(p.text) {
		return "", p.fault(start, "an operation and a value are missing").hint("write %s", like)
	}
	for _, op := range []string{"<=", ">=", "==", "=~", "!~"} {
		if strings.HasPrefix(p.text[p.at:], op) {
			meant := map[string]string{"<=": "<", ">=": ">", "==": "=", "=~": "=, with * behind the value for all that begin with it", "!~": "!="}[op]
			return "", p.fault(start, "there is no operation %q", op).hint("write %s", meant)
		}
	}
	for _, op := range []Op{IsNot, Is, Before, After} {
		if strings.HasPrefix(p.text[p.at:], string(op)) {
			p.at += len(op)
			return op, nil
		}
	}
	switch word := strings.ToLower(p.word()); word {
	case "in":
		return In, nil
	case "not":
		p.space()
		if strings.EqualFold(p.word(), "in") {
			return NotIn, nil
		}
	}
	p.at = start
	e := p.fault(start, "%q is no operation", p.rest(start))
	return "", e.hint("there are =, !=, <, >, in and not in: write %s", like)
}

// value reads one value. Of a list it ends before a comma.
func (p *parser) value(list bool, like string) (text string, quoted, star bool, err error) {
	start := p.at
	if p.at == len(p.text) {
		return "", false, false, p.fault(start, "a value is missing").hint("write %s; for one that is empty write \"\"", like)
	}
	if p.text[p.at] == '"' {
		var b strings.Builder
		for p.at++; ; p.at++ {
			if p.at == len(p.text) {
				return "", false, false, p.fault(start, "this quotation mark is not closed").hint("add \" behind the value")
			}
			c := p.text[p.at]
			if c == '"' {
				break
			}
			if c == '\\' {
				if p.at++; p.at == len(p.text) || p.text[p.at] != '"' && p.text[p.at] != '\\' {
					return "", false, false, p.fault(p.at-1, "a \\ that nothing needs").hint("within quotation marks write \\\" and \\\\")
				}
				c = p.text[p.at]
			}
			b.WriteByte(c)
		}
		p.at++
		if star = strings.HasPrefix(p.text[p.at:], "*"); star {
			p.at++
		}
		if p.at < len(p.text) {
			if r, _ := utf8.DecodeRuneInString(p.text[p.at:]); !unicode.IsSpace(r) && !(list && r == ',') {
				return "", false, false, p.fault(p.at, "%q stands behind the quotation mark", p.rest(p.at)).hint("put a space between terms")
			}
		}
		return b.String(), true, star, p.clean(b.String(), start)
	}
	for p.at < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.at:])
		if unicode.IsSpace(r) || list && r == ',' {
			break
		}
		if r == '"' {
			return "", false, false, p.fault(p.at, "a quotation mark within a value").hint("put the whole value in quotation marks, and \\\" for those within")
		}
		p.at += n
	}
	text = p.text[start:p.at]
	if text == "" {
		return "", false, false, p.fault(start, "a value is missing").hint("write %s", like)
	}
	if text, star = strings.CutSuffix(text, "*"); strings.Contains(text, "*") {
		return "", false, false, p.fault(start, "a * can only stand at the end").hint("for a * that is meant, put the value in quotation marks")
	}
	return text, false, star, p.clean(text, start)
}

// clean refuses control characters, which a list on a terminal would obey.
func (p *parser) clean(text string, at int) error {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return p.fault(at, "a control character in the value").hint("take it out")
	}
	return nil
}

// read turns the text of a value into the value. Its fault has no column yet.
func (s shape) read(t *Term, text string, quoted, star bool, words []string, like string) (Value, *Error) {
	bad := func(format string, args ...any) *Error { return &Error{Message: fmt.Sprintf(format, args...)} }
	if star && s != isText {
		if s == isPart {
			star = false // it is looked for anywhere
		} else {
			return Value{}, bad("%s takes no *", t.Field).hint("write %s", like)
		}
	}
	switch s {
	case isWord:
		text = strings.ToLower(text)
		if text == "grant" && t.Field == Kind {
			text = "refresh_token"
		}
		if !slices.Contains(words, text) {
			e := bad("there is no %s %q", t.Field, clip(text))
			if near := config.Nearest(text, words); near != "" {
				return Value{}, e.hint("did you mean %s?", near)
			}
			return Value{}, e.hint("known are %s", strings.Join(words, ", "))
		}
	case isPart:
		if text == "" && !quoted {
			return Value{}, bad("a value is missing").hint("write %s", like)
		}
	case isHandle:
		if text != "" && !handle(text) {
			return Value{}, bad("%q is not the handle of a session", clip(text)).hint("write the whole of it, ses_ and 23 characters")
		}
	case isAddr:
		return readAddr(t, text, quoted)
	case isTime:
		return readTime(t, text, like)
	}
	return Value{Text: text, Prefix: star}, nil
}

func handle(text string) bool {
	head, tail, ok := strings.Cut(text, "_")
	b, err := base64.RawURLEncoding.Strict().DecodeString(tail)
	return ok && err == nil && len(b) == 17 && slices.Contains([]string{"ses", "key", "grant", "client"}, head)
}

func readAddr(t *Term, text string, quoted bool) (Value, *Error) {
	if text == "" && quoted {
		return Value{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return Value{Net: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	n, err := netip.ParsePrefix(text)
	if err != nil {
		return Value{}, (&Error{Message: fmt.Sprintf("%q is neither an address nor a network", clip(text))}).hint("write ip=203.0.113.7 or ip in 203.0.113.0/24")
	}
	if t.Op == Is || t.Op == IsNot {
		meant := In
		if t.Op == IsNot {
			meant = NotIn
		}
		return Value{}, (&Error{Message: "a network is no address"}).hint("write ip %s %s", meant, n)
	}
	if n.Addr().Is4In6() {
		if n.Bits() < 96 { // an IPv4 address is none of an IPv6 network, however it is written
			return Value{}, (&Error{Message: "a network of IPv4 addresses within IPv6 has at least 96 bits"}).hint("write ip in %s", netip.PrefixFrom(n.Addr().Unmap(), 24).Masked())
		}
		n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return Value{Net: n.Masked()}, nil
}

// layouts are the forms of times, without and with a zone. Without one, UTC is meant.
var layouts = []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339, "2006-01-02T15:04Z07:00"}

func readTime(t *Term, text, like string) (Value, *Error) {
	if strings.EqualFold(text, "never") && t.Field == Expires && (t.Op == Is || t.Op == IsNot) {
		return Value{never: true}, nil
	}
	if t.Op == Is || t.Op == IsNot {
		return Value{}, (&Error{Message: fmt.Sprintf("%s is compared with < (before) and > (after)", t.Field)}).hint("write %s, or expires=never", like)
	}
	for _, l := range layouts {
		if at, err := time.Parse(l, strings.ToUpper(text)); err == nil {
			if at.Year() < 1970 || at.Year() > 9000 {
				return Value{}, (&Error{Message: fmt.Sprintf("%q is before 1970, or too far ahead", clip(text))}).hint("write %s", like)
			}
			return Value{At: at.UTC().Truncate(time.Millisecond), fixed: true}, nil
		}
	}
	d, err := config.ParseDuration(text)
	if err != nil || d > 100*365*24*time.Hour {
		hint := like + ", or " + string(t.Field) + string(t.Op) + "2026-09-01T10:00"
		return Value{}, (&Error{Message: fmt.Sprintf("%q is neither a time nor a span of time", clip(text))}).hint("write %s", hint)
	}
	return Value{Span: d}, nil
}

// String returns the term as Parse reads it.
func (t *Term) String() string {
	var b strings.Builder
	b.WriteString(string(t.Field))
	op := t.Op
	if len(t.Values) == 1 && t.shape != isAddr { // one of one is that one
		switch op {
		case In:
			op = Is
		case NotIn:
			op = IsNot
		}
	}
	if op == In || op == NotIn {
		b.WriteString(" " + string(op) + " ")
	} else {
		b.WriteString(string(op))
	}
	for i := range t.Values {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(t.Values[i].text(t.shape, op))
	}
	return b.String()
}

func (v *Value) text(s shape, op Op) string {
	switch {
	case s == isAddr && !v.Net.IsValid():
		return `""`
	case s == isAddr && v.Net.IsSingleIP():
		return v.Net.Addr().String()
	case s == isAddr:
		return v.Net.String()
	case s == isTime && v.never:
		return "never"
	case s == isTime && v.fixed:
		return v.At.Format("2006-01-02T15:04:05.999Z07:00")
	case s == isTime:
		return config.Duration(v.Span).String()
	}
	text := v.Text
	if text == "" && !v.Prefix || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`"*,\`, r) }) {
		text = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
	}
	if v.Prefix {
		text += "*"
	}
	return text
}
