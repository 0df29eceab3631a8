//go:build !race

package redisstore

const slow = 1
