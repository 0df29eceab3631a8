//go:build !unix

package server

import "os"

// hold does nothing where there is no flock.
func hold(*os.File) error { return nil }
