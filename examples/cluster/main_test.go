package main

import "testing"

// The story is a test: it fails if a revoked session is accepted for longer than a second, if a request fails when a node
// dies, and if anybody is signed out by a failover.
func TestCluster(t *testing.T) {
	if err := run(t.Context(), true); err != nil {
		t.Fatal(err)
	}
}
