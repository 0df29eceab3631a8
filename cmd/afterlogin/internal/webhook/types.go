package webhook

import (
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// The types of events that are of webhooks alone.
const (
	// EventMissed says that events between two times were not seen: what was derived from earlier ones is out of date.
	EventMissed = "events.missed"
	// EventTest is what Test sends.
	EventTest = "webhook.test"
)

// types are the types of events that the core keeps, and that can be asked for.
var types = []string{
	afterlogin.EventCreated, afterlogin.EventRenewed, afterlogin.EventStepUp, afterlogin.EventRevoked, afterlogin.EventFrozen,
	afterlogin.EventThawed, afterlogin.EventSuperseded, afterlogin.EventReuse, afterlogin.EventRolledBack, afterlogin.EventSubject,
	afterlogin.EventKeyCreated, afterlogin.EventKeyRevoked, afterlogin.EventKeyReuse, afterlogin.EventKeyRotated,
	afterlogin.EventKeyFrozen, afterlogin.EventKeyThawed,
	afterlogin.EventGrantCreated, afterlogin.EventGrantRenewed, afterlogin.EventGrantRevoked, afterlogin.EventGrantReuse,
	afterlogin.EventGrantFrozen, afterlogin.EventGrantThawed,
	afterlogin.EventAccessCreated, afterlogin.EventAccessRevoked,
	afterlogin.EventCodeCreated, afterlogin.EventCodeRedeemed, afterlogin.EventCodeReplayed,
	afterlogin.EventTicketCreated, afterlogin.EventTicketUsed,
	afterlogin.EventClientCreated, afterlogin.EventClientChanged, afterlogin.EventClientRevoked,
	afterlogin.EventEntryCreated, afterlogin.EventEntryChanged,
}

// Types returns the types of events that a webhook can ask for.
func Types() []string { return slices.Sorted(slices.Values(types)) }

// DefaultEvents returns what a webhook gets that asks for nothing in particular: the ends of things, and what may be one.
func DefaultEvents() []string {
	return []string{
		afterlogin.EventRevoked, afterlogin.EventFrozen, afterlogin.EventThawed, afterlogin.EventSuperseded, afterlogin.EventReuse, afterlogin.EventRolledBack,
		afterlogin.EventSubject,
		afterlogin.EventKeyRevoked, afterlogin.EventKeyFrozen, afterlogin.EventKeyThawed, afterlogin.EventKeyReuse,
		afterlogin.EventGrantRevoked, afterlogin.EventGrantFrozen, afterlogin.EventGrantThawed, afterlogin.EventGrantReuse,
		afterlogin.EventAccessRevoked, afterlogin.EventCodeReplayed, afterlogin.EventClientRevoked,
	}
}

// wants reports whether one of the patterns is the type: its name, the part before a dot and ".*", or "*".
func wants(patterns []string, typ string) bool {
	for _, p := range patterns {
		if p == typ || p == "*" {
			return true
		}
		if head, ok := strings.CutSuffix(p, "*"); ok && strings.HasSuffix(head, ".") && strings.HasPrefix(typ, head) {
			return true
		}
	}
	return false
}

// checkEvents returns the patterns without repetitions; the default ones for none.
func checkEvents(patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return DefaultEvents(), nil
	}
	if len(patterns) > maxPatterns {
		return nil, bad("events", "want at most %d types; session.* names all of a kind", maxPatterns)
	}
	var out []string
	for _, p := range patterns {
		if slices.Contains(out, p) {
			continue
		}
		if !slices.ContainsFunc(types, func(typ string) bool { return wants([]string{p}, typ) }) {
			if near := config.Nearest(p, types); near != "" {
				return nil, bad("events", "there are no events of the type %q; did you mean %q?", shown(p), near)
			}
			return nil, bad("events", "there are no events of the type %q; it is one of %s, or such as session.*, or *", shown(p), strings.Join(Types(), ", "))
		}
		out = append(out, p)
	}
	return out, nil
}

// shown is a text of a request, cut for an error.
func shown(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
