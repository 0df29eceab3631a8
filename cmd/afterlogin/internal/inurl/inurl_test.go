package inurl

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root := "als_" + strings.Repeat("A", 84)
	child := "ala_" + strings.Repeat("b", 96)
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"none":                     {"q=" + strings.Repeat("x", 200), nil},
		"a root's":                 {"t=" + root, []string{root}},
		"a child's":                {"t=" + child + "&x", []string{child, child[:Root]}},
		"encoded twice":            {"r=" + url.QueryEscape(url.QueryEscape("/a?t="+root+"&b=%")), []string{root}},
		"beside a bad escape":      {"x=%zz&t=" + strings.Replace(root, "_", "%5F", 1), []string{root}},
		"behind what it is of":     {"t=id_" + root, []string{root}},
		"before what it is of":     {"t=" + root + strings.Repeat("c", 12), []string{root + strings.Repeat("c", 12), root}},
		"of a kind that may stand": {"code=alc_" + child[4:], nil},
		"too short":                {"t=" + root[:87], nil},
	} {
		if got := Find(tt.text, "ska"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add("a=%25als_", "z")
	f.Fuzz(func(t *testing.T, before, after string) {
		token := "alk_" + strings.Repeat("Z", 84)
		if strings.Contains(before+after, "%") || len(Find(before, "k")) > 0 {
			return
		}
		if !slices.Contains(Find(before+token+after, "k"), token) {
			t.Errorf("not found between %q and %q", before, after)
		}
	})
}
