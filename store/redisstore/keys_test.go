package redisstore

import (
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

// The groups are spread evenly over the slots, and so over masters with equal shares of them.
func TestSlots(t *testing.T) {
	if got := crc16("123456789"); got != 0x31C3 {
		t.Fatalf("crc16 = %#x, want 0x31c3", got)
	}
	if len(tags) != groups {
		t.Fatalf("%d tags, want %d", len(tags), groups)
	}
	for g, slot := range slots {
		if want := g*slotCount/groups + slotCount/groups/2; slot < want-2 || slot > want+2 {
			t.Errorf("tag %q has slot %d, want about %d", tags[g], slot, want)
		}
	}
	for _, masters := range []int{2, 3, 5, 6, 10, 16, 20, 32, 64} {
		share := make([]int, masters)
		for _, slot := range slots {
			share[slot*masters/slotCount]++
		}
		for m, n := range share {
			if n < groups/masters || n > (groups+masters-1)/masters+1 {
				t.Errorf("%d masters: master %d has %d groups", masters, m, n)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	k := newKeys("al")
	for p := range store.Partitions {
		random := [14]byte{byte(p >> 2), byte(p << 6), 0x7B, 0x7D}
		id := store.NewRootID(store.NoBucket, random, 0, "")
		g := groupOf(id)
		if g != partitionGroup(p) {
			t.Fatalf("partition %d: group %d, want %d", p, g, partitionGroup(p))
		}
		for _, key := range []string{k.record(id), k.tenant(g, 7), k.changes(g), k.events(g), k.layout(g), k.loaded(g), k.tenants(g)} {
			if got, ok := k.groupOfKey(key); !ok || got != g {
				t.Fatalf("groupOfKey(%q) = %d, %v, want %d", key, got, ok, g)
			}
		}
		if got, ok := k.parseRecord(g, k.record(id)); !ok || got != id {
			t.Fatalf("parseRecord = %v, %v, want %v", got, ok, id)
		}
	}
	for _, key := range []string{"", "al", "al:{", "al:{53t", "al:{zzz}:c", "other:{53t}:c"} {
		if g, ok := k.groupOfKey(key); ok {
			t.Errorf("groupOfKey(%q) = %d", key, g)
		}
	}
}
