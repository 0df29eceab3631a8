package pulse

import "time"

// point is what happened in a second or a minute.
type point struct {
	counts Counts
	took   [3]float32 // p50, p95 and p99 of a validation, in milliseconds; 0: there was none
}

// ring holds the latest points. Points are numbered; those that nobody has added to are zero.
type ring struct {
	points   []point
	refusals []uint32 // reasons for each point
	reasons  int
	newest   int64
}

func newRing(size, reasons int) *ring {
	return &ring{points: make([]point, size), refusals: make([]uint32, size*reasons), reasons: reasons}
}

// slot makes the numbered point the newest, unless a newer one is there, and returns where it is kept, or -1 if it has
// been dropped already.
func (r *ring) slot(n int64) int {
	size := int64(len(r.points))
	if n > r.newest+size {
		r.newest = n - size // nothing that is there stays
	}
	for r.newest < n {
		r.newest++
		i := int(r.newest % size)
		r.points[i] = point{}
		clear(r.refusals[i*r.reasons : (i+1)*r.reasons])
	}
	if n <= r.newest-size {
		return -1
	}
	return int(n % size)
}

func (r *ring) add(n int64, c Counts) {
	if i := r.slot(n); i >= 0 {
		r.points[i].counts.add(c)
	}
}

func (r *ring) refuse(n int64, reason int, by uint64) {
	if by == 0 {
		return
	}
	if i := r.slot(n); i >= 0 {
		r.refusals[i*r.reasons+reason] += uint32(by)
	}
}

func (r *ring) took(n int64, took [3]float32) {
	if i := r.slot(n); i >= 0 {
		r.points[i].took = took
	}
}

// quantiles returns p50, p95 and p99 of times that were counted by their bounds, in milliseconds: by linear
// interpolation, and for what is above all bounds the highest of these.
func quantiles(bounds []time.Duration, counts []uint64) (q [3]float32) {
	var all uint64
	for _, n := range counts {
		all += n
	}
	if all == 0 || len(counts) != len(bounds)+1 {
		return q
	}
	for k, share := range [3]float64{0.5, 0.95, 0.99} {
		want, below := share*float64(all), 0.0
		for i, n := range counts {
			if below += float64(n); below < want {
				continue
			}
			var low, high time.Duration
			if i > 0 {
				low = bounds[i-1]
			}
			high = bounds[min(i, len(bounds)-1)]
			in := 1 - (below-want)/float64(n)
			q[k] = float32((float64(low) + float64(high-low)*in) / float64(time.Millisecond))
			break
		}
	}
	return q
}
