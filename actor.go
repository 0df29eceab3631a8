package afterlogin

import (
	"context"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/store"
)

type actorKey struct{}

// maxActor is the greatest size of who did something, in bytes.
const maxActor = 128

// WithActor returns a context whose calls name in their events who caused them (Event.Actor): the handle of an API key,
// "self" for the person, a name of an operator. It is for people and programs to read, and decides nothing. What is over
// 128 bytes is cut, and what is not seen (control characters, those that turn the direction of writing) is left out.
func WithActor(ctx context.Context, who string) context.Context {
	who = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unseen(r) {
			return -1
		}
		return r
	}, who)
	return context.WithValue(ctx, actorKey{}, cutText(who, maxActor))
}

// unseen reports whether the character breaks or turns around the line it stands in, or is none. What joins and parts
// letters is part of names in many languages.
func unseen(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == '\u200b' || r == '\ufeff'
}

// plain reports whether the text is UTF-8 of at most n bytes that can stand in a line of a log.
func plain(s string, n int) bool {
	return len(s) <= n && utf8.ValidString(s) && !strings.ContainsFunc(s, unseen)
}

// ActorOf returns who the context's calls are made for, as WithActor was told; "" if it was not.
func ActorOf(ctx context.Context) string {
	who, _ := ctx.Value(actorKey{}).(string)
	return who
}

// actorMark stands in a stored event's detail before who caused it: stores have no column for that.
const actorMark = "\x1f"

// signed adds to the events among the operations who caused them. Once: a mark that the detail brings along is not ours.
func signed(ctx context.Context, ops []store.Op) {
	who := ActorOf(ctx)
	for i := range ops {
		e := &ops[i].Event
		if ops[i].Kind != store.OpEvent {
			continue
		}
		e.Detail = strings.ReplaceAll(e.Detail, actorMark, " ")
		if who != "" {
			e.Detail = cutText(e.Detail, store.MaxText-len(actorMark)-len(who)) + actorMark + who
		}
	}
}

// cutText returns at most n bytes of the text, whole characters only.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
