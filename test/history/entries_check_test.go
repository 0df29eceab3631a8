package history

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What porcupine is not given says nothing that the rest does not say: with and without it the verdict is the same, on
// histories of good stores and of bad ones.
func TestEntries(t *testing.T) {
	verdicts := make(map[porcupine.CheckResult]int)
	for _, b := range []bugs{{}, {ignore: true}, {neverEnds: true}, {lostMarks: true}, {twoHeirs: true}, {missing: true}} {
		w, stores := sharedWorld(t, b, 40*time.Millisecond)
		w.hot, w.calls = 12, 40 // few: all that there is has to be searched
		w.run(8, 1<<30)
		for i := range 8 {
			stores[1].down.Store(i%4 == 2)
			if b.neverEnds {
				stores[1].answers.Store(int64(3 * time.Second))
			}
			time.Sleep(300 * time.Millisecond)
		}
		stores[1].down.Store(false)
		stores[1].answers.Store(0)
		w.end()
		subjects := make(map[int][]*operation)
		for _, o := range w.inOrder() {
			if o.outcome != broken {
				subjects[o.subject] = append(subjects[o.subject], o)
			}
		}
		m := w.rules.model()
		checked := 0
		for _, ops := range subjects {
			few := porcupine.CheckOperationsTimeout(m, w.rules.entries(ops), time.Second)
			all := porcupine.CheckOperationsTimeout(m, w.rules.allEntries(ops), time.Second)
			if few == porcupine.Unknown || all == porcupine.Unknown {
				verdicts[porcupine.Unknown]++
				if verdicts[porcupine.Unknown] > 10 {
					break
				}
				continue
			}
			verdicts[few]++
			checked++
			if few != all {
				t.Errorf("seed %d, bugs %+v: %v, and %v with all operations:%s", w.seed, b, few, all, story(w.rules.allEntries(ops)))
				return
			}
			if checked == 250 {
				break
			}
		}
	}
	t.Logf("verdicts on subjects: %v", verdicts)
	if verdicts[porcupine.Ok] < 100 || verdicts[porcupine.Illegal] < 3 {
		t.Error("the comparison proves little")
	}
}
