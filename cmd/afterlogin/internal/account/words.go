package account

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
)

// words are the texts of one language. A language is a map like english, in a file of its own, and a line here.
type words map[string]string

var languages = []words{english, german}

// maxLanguages is how much of Accept-Language is looked at, in bytes.
const maxLanguages = 256

// language returns the words that the header asks for (RFC 9110, section 12.5.4), English if it asks for none that there
// are.
func language(header string) words {
	best, most := languages[0], 0.0
	header = header[:min(len(header), maxLanguages)]
	for part := range strings.SplitSeq(header, ",") {
		tag, rest, _ := strings.Cut(strings.TrimSpace(part), ";")
		q := 1.0
		if text, ok := strings.CutPrefix(strings.ReplaceAll(rest, " ", ""), "q="); ok {
			var err error
			if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		for _, w := range languages {
			if q > most && (w["lang"] == primary || primary == "*") {
				best, most = w, q
				break
			}
		}
	}
	return best
}

// t returns the text, with the arguments in their places. A key that is not there is a mistake of the program's.
func (w words) t(key string, args ...any) string {
	text, ok := w[key]
	if !ok {
		panic("account: no text for " + key)
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// ago says when something was: how long ago, or, when that is long, on which day (UTC).
func (w words) ago(now, at time.Time) string {
	d := now.Sub(at)
	n := func(unit time.Duration) string { return strconv.Itoa(int(d / unit)) }
	switch {
	case d < 10*time.Minute:
		return w.t("ago.now")
	case d < time.Hour:
		return w.t("ago.minutes", strconv.Itoa(int(d/rounding)*5))
	case d < 2*time.Hour:
		return w.t("ago.hour")
	case d < 24*time.Hour:
		return w.t("ago.hours", n(time.Hour))
	case d < 48*time.Hour:
		return w.t("ago.day")
	case d < 14*24*time.Hour:
		return w.t("ago.days", n(24*time.Hour))
	}
	return w.t("on", w.date(at))
}

func (w words) date(at time.Time) string {
	at = at.UTC()
	return w.t("date", strconv.Itoa(at.Day()), w.t("month."+strconv.Itoa(int(at.Month()))), strconv.Itoa(at.Year()))
}

// list joins names: "a, b and c".
func (w words) list(names []string) string {
	switch n := len(names); n {
	case 0:
		return ""
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " " + w.t("and") + " " + names[n-1]
	}
}

// why says why something has ended.
func (w words) why(reason afterlogin.Reason) string {
	if text, ok := w["why."+string(reason)]; ok {
		return text
	}
	return w.t("why.other") // for a reason of the application's own, which is for programs
}

// device names a device.
func (w words) device(d device.Device) string {
	name, system := d.Program, d.System
	if system == "Mac or iPad" {
		system = w.t("device.tablet")
	}
	switch {
	case d.App:
		name = w.t("device.app")
	case d.Bot:
		return w.t("device.bot", name)
	case name == "" && system == "":
		return w.t("device.none")
	case name == "":
		name = w.t("device.other")
	}
	if system != "" {
		return w.t("system.on", name, system)
	}
	return name
}

// place says roughly where something is.
func (w words) place(e *entry) string {
	if e.place != "" {
		return e.place
	}
	switch e.net {
	case geo.Loopback, geo.Private, geo.Documentation:
		return w.t("net." + string(e.net))
	}
	return ""
}

// title is what the entry is called.
func (w words) title(e *entry) string {
	named := func(key string) string {
		switch {
		case e.name == "":
			return w.t(key + ".unnamed")
		case !e.ended.IsZero():
			return w.t(key+".named", e.name)
		}
		return e.name
	}
	switch e.kind {
	case kindApp:
		return named("app")
	case kindAPIKey:
		return named("key")
	}
	return w.device(e.device)
}

// by says how somebody signed in, "" if nothing that people have a word for is known.
func (w words) by(e *entry) string {
	var names []string
	if e.provider != "" {
		names = append(names, e.provider)
	}
	for _, m := range e.methods {
		if text, ok := w["by."+m]; ok && len(names) < 4 {
			names = append(names, text)
		}
	}
	return w.list(names)
}
