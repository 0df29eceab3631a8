package telemetry

import (
	"slices"
	"sync/atomic"
	"time"
)

// Bounds of histograms. Whoever validates a token waits for it before every request: there the fine ones count.
var (
	storeBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}
	httpBuckets  = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

	validateBounds = [...]time.Duration{
		25 * time.Microsecond, 50 * time.Microsecond, 75 * time.Microsecond, 100 * time.Microsecond, 150 * time.Microsecond, 250 * time.Microsecond,
		500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
	}
)

func validateBuckets() (out []float64) {
	for _, b := range validateBounds {
		out = append(out, b.Seconds())
	}
	return out
}

// timings counts validations by how long they took, for who reads them every second.
type timings [len(validateBounds) + 1]atomic.Uint64

func (t *timings) add(took time.Duration) {
	i := 0
	for i < len(validateBounds) && took > validateBounds[i] {
		i++
	}
	t[i].Add(1)
}

func (t *timings) read() (bounds []time.Duration, counts []uint64) {
	counts = make([]uint64, len(t))
	for i := range t {
		counts[i] = t[i].Load()
	}
	return slices.Clone(validateBounds[:]), counts
}
