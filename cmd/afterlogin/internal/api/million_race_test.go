//go:build race

package api

// slowed says that times mean nothing: the race detector makes everything many times slower.
const slowed = true
