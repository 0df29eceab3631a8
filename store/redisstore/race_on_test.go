//go:build race

package redisstore

// slow is by how much a test that measures time is more lenient under the race detector.
const slow = 4
