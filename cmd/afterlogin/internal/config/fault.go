package config

import (
	"fmt"
	"regexp"
	"strings"
)

// A Fault is one thing that is wrong with the settings.
type Fault struct {
	Key     string // the setting; empty if it is about the file as a whole
	Source  string // where the value came from: see Loaded.Source
	Line    int    // in the file, from 1; 0 if it did not come from there
	Column  int
	Message string
	Excerpt string // of the file, with a mark; several lines
	Hint    string // what to do about it
}

// Error returns one line.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.Source != "" && f.Source != "default" {
		b.WriteString(f.Source)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Column)
		}
		b.WriteString(": ")
	}
	if f.Key != "" && !strings.Contains(f.Message, f.Key) {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	return b.String()
}

// Faults are everything that is wrong with the settings.
type Faults []*Fault

// Error returns a line for each.
func (f Faults) Error() string {
	var lines []string
	for _, e := range f {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}

// maxFaults bounds what is reported of a file that is not a configuration at all.
const maxFaults = 50

func (l *Loaded) add(f *Fault) {
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, f)
	}
}

func (l *Loaded) fault(key, format string, args ...any) { l.faultHint(key, "", format, args...) }

func (l *Loaded) faultHint(key, hint, format string, args ...any) {
	f := &Fault{Key: key, Source: l.Source(key), Message: fmt.Sprintf(format, args...), Hint: hint}
	if p, ok := l.places[key]; ok && p.line > 0 {
		f.Line, f.Column = p.line, p.col
		f.Excerpt = l.excerpt(p.line, p.col)
	}
	l.add(f)
}

// faultAt reports about a place in the file that is no setting's value.
func (l *Loaded) faultAt(line, col int, hint, format string, args ...any) {
	l.add(&Fault{
		Source: fmt.Sprintf("%s:%d", l.file, line), Line: line, Column: col,
		Message: fmt.Sprintf(format, args...), Hint: hint, Excerpt: l.excerpt(line, col),
	})
}

// unknown reports a name that is not among those that could stand there.
func (l *Loaded) unknown(key, name string, known []string, in string) {
	msg := fmt.Sprintf("unknown key %q", clip(name))
	if in != "" {
		msg += " in " + in
	}
	hint := "known are " + strings.Join(known, ", ")
	if near := Nearest(name, known); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	p := l.places[key]
	f := &Fault{Source: p.from, Line: p.line, Column: p.col, Message: msg, Hint: hint}
	if p.line > 0 {
		f.Excerpt = l.excerpt(p.line, p.col)
	}
	l.add(f)
}

// excerpt shows the line with a mark under the column, and two lines before and one after. A file that seems to hold a
// secret is not shown at all.
func (l *Loaded) excerpt(line, col int) string {
	// However the key is quoted. The file's name is no secret.
	rest := noSecret.Replace(string(l.source))
	if strings.Contains(rest, "master_key") || strings.Contains(rest, "secret") || withUser.MatchString(rest) {
		return ""
	}
	lines := strings.Split(string(l.source), "\n")
	var b strings.Builder
	for n := max(1, line-2); n <= min(line+1, len(lines)); n++ {
		text := strings.TrimRight(lines[n-1], "\r")
		if n == len(lines) && text == "" {
			break
		}
		mark := " "
		if n == line {
			mark = ">"
		}
		fmt.Fprintf(&b, "%s %3d | %s\n", mark, n, printable(text))
		if n == line {
			fmt.Fprintf(&b, "        %s^\n", strings.Repeat(" ", max(0, min(col, len(text)+1)-1)))
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// withUser finds an address that may have a password in it.
var withUser = regexp.MustCompile(`(?im)://\S*[@#]|[?&]\w*pass\w*=|^\W*store\W*:.*@`)

// noSecret takes the names away that look like those of secrets and are not.
var noSecret = strings.NewReplacer("master_key_file", "", "secret_file", "", "secret_sha256", "", "auth: secret", "")

// printable replaces what a terminal might take for a command, and cuts what is very long.
func printable(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7F && r < 0xA0 {
			return '?'
		}
		return r
	}, s)
}

// Nearest returns the name that is most like the given one, or "" if none is.
func Nearest(name string, names []string) string {
	if len(name) > 64 {
		return ""
	}
	best, least := "", max(1, len(name)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	before := make([]int, len(b)+1) // two rows up
	above := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above, row = above, row, before
	}
	return above[len(b)]
}
