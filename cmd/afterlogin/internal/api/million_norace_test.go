//go:build !race

package api

const slowed = false
