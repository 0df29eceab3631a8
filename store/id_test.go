package store

import (
	"bytes"
	"errors"
	"testing"
)

func TestBucketOf(t *testing.T) {
	for _, tt := range []struct {
		absolute int64
		want     Bucket
	}{
		{0, NoBucket},
		{-1, NoBucket},
		{1, 1},
		{hour, 1},
		{hour + 1, 2},
		{500_000 * hour, 500_000},
		{1<<63 - 1 - hour, NoBucket - 1}, // never mistaken for one that never ends
	} {
		if got := BucketOf(tt.absolute); got != tt.want {
			t.Errorf("BucketOf(%d) = %d, want %d", tt.absolute, got, tt.want)
		}
		if b := BucketOf(tt.absolute); b < NoBucket-1 && b.End() < tt.absolute {
			t.Errorf("bucket %d ends at %d, before %d", b, b.End(), tt.absolute)
		}
	}
}

func TestIDs(t *testing.T) {
	random := [14]byte{0xAA, 0xBB, 0xCC, 13: 0xDD}
	root := NewRootID(0x010203, random, 7, "alice")
	anonymous := NewRootID(0x010203, random, 7, "")
	child := NewChildID(root, 0x010204, [6]byte{1, 2, 3, 4, 5, 6})
	grandchild := NewChildID(child, 0x010205, [6]byte{6})
	subject := SubjectID(7, "alice")
	for _, tt := range []struct {
		name                 string
		id                   ID
		len                  int
		root, child, subject bool
		under                ID
		bucket               Bucket
	}{
		{"root", root, 17, true, false, false, root, 0x010203},
		{"anonymous", anonymous, 17, true, false, false, anonymous, 0x010203},
		{"child", child, 26, false, true, false, root, 0x010204},
		{"child of a child", grandchild, 26, false, true, false, root, 0x010205},
		{"subject", subject, 23, false, false, true, subject, NoBucket},
	} {
		if tt.id.Len() != tt.len || tt.id.IsRoot() != tt.root || tt.id.IsChild() != tt.child || tt.id.IsSubject() != tt.subject ||
			tt.id.Root() != tt.under || tt.id.Bucket() != tt.bucket || tt.id.IsZero() {
			t.Errorf("%s: %v is not what it should be", tt.name, tt.id)
		}
		parsed, err := ParseID(tt.id.Append(nil))
		if err != nil || parsed != tt.id {
			t.Errorf("%s: ParseID(%v) = %v, %v", tt.name, tt.id, parsed, err)
		}
	}
	// What one request needs stands in one partition.
	if p := subject.Partition(); root.Partition() != p || child.Partition() != p || p < 0 || p >= Partitions {
		t.Errorf("partitions %d, %d, %d of subject, root and child", p, root.Partition(), child.Partition())
	}
	if anonymous.Partition() != 0xAA<<2|0xBB>>6 {
		t.Errorf("partition %d of an anonymous root is not from its random bytes", anonymous.Partition())
	}
	// Only the first ten of the random bits are replaced.
	if a, b := root.Append(nil), anonymous.Append(nil); !bytes.Equal(a[5:], b[5:]) || a[4]&0x3F != b[4]&0x3F {
		t.Errorf("%v and %v differ in more than their partition", root, anonymous)
	}
	if SubjectID(7, "alice") != subject || SubjectID(8, "alice") == subject || SubjectID(7, "alicf") == subject {
		t.Error("SubjectID is not a function of tenant and subject alone")
	}
	if !(ID{}).IsZero() || (ID{}).Len() != 0 {
		t.Error("the zero ID is not zero")
	}
	if root.Compare(child) >= 0 || child.Compare(root) <= 0 || root.Compare(root) != 0 {
		t.Error("a root does not sort before its child")
	}
}

// TestSubjectIDVector holds the format: ids are on disks.
func TestSubjectIDVector(t *testing.T) {
	const want = "ffffff" + "371c8ff8082531d6d0dec71ba342ebdede71387a"
	if got := SubjectID(1, "alice").String(); got != want {
		t.Errorf("SubjectID(1, alice) = %s, want %s", got, want)
	}
}

func TestParseIDRefuses(t *testing.T) {
	for n := range 40 {
		_, err := ParseID(make([]byte, n))
		if ok := n == 17 || n == 26; ok != (err == nil) || !ok && !errors.Is(err, ErrBadID) {
			t.Errorf("ParseID of %d zeros = %v", n, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(SubjectID(1, "alice").Append(nil))
	f.Add(NewRootID(1, [14]byte{1}, 0, "").Append(nil))
	f.Add(make([]byte, 26))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := ParseID(b)
		if err != nil {
			return
		}
		if !bytes.Equal(id.Append(nil), b) || id.Len() != len(b) {
			t.Errorf("ParseID(%x) = %v", b, id)
		}
		if p := id.Partition(); p < 0 || p >= Partitions {
			t.Errorf("partition %d of %v", p, id)
		}
		if r := id.Root(); r.Root() != r || r.IsChild() {
			t.Errorf("root %v of %v", r, id)
		}
	})
}
