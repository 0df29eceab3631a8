package afterlogin_test

import (
	"fmt"
	"testing"

	"github.com/afterlogin/afterlogin"
)

// BenchmarkValidate is the hot path: a cached session. It must stay at 2 allocations.
func BenchmarkValidate(b *testing.B) {
	h := newHouse(b)
	tokens := make([]string, 10_000)
	for i := range tokens {
		got, err := h.Issue(b.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		tokens[i] = got.Token.Reveal()
	}
	e := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}
	i := 0
	next := func() {
		if _, err := h.Validate(b.Context(), afterlogin.TokenFrom(tokens[i%len(tokens)]), e); err != nil {
			b.Fatal(err)
		}
		i++
	}
	for range tokens {
		next()
	}
	b.ReportAllocs()
	for b.Loop() {
		next()
	}
}
