package main

import (
	"slices"
	"testing"
)

func TestIDsLast(t *testing.T) {
	const id = "-Nio_OnL3_mElj_kFFtJY3dkezCWakcccT_QbOMP-M8"
	for _, tt := range []struct{ args, want []string }{
		{[]string{"keys", "list"}, []string{"keys", "list"}},
		{[]string{"keys", "retire", id, "--yes"}, []string{"keys", "retire", "--yes", "--", id}},
		{[]string{"keys", "retire", "--yes", "--", id}, []string{"keys", "retire", "--yes", "--", id}},
		{[]string{"serve", "--listen", "127.0.0.1:0"}, []string{"serve", "--listen", "127.0.0.1:0"}},
	} {
		if got := idsLast(tt.args); !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
	}
}
