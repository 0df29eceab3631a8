package users

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestUsers(t *testing.T) {
	f := open(t, nil, quick)
	u, err := f.Add(t.Context(), "mia@example.com", good, []string{"read"})
	if err != nil || u.Name != "mia@example.com" || u.Disabled || u.Pending || len(u.Scopes) != 1 || !u.PasswordChanged.Equal(f.clock()) {
		t.Fatalf("%+v, %v", u, err)
	}
	f.add("tom")
	if _, err := f.Add(t.Context(), "tom", good, nil); !errors.Is(err, ErrUserExists) {
		t.Errorf("a name twice: %v", err)
	}
	if _, err := f.User(t.Context(), "nobody"); !errors.Is(err, ErrNoUser) {
		t.Errorf("nobody: %v", err)
	}
	names := ""
	for u, err := range f.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		names += u.Name + " "
	}
	if len(names) != len("mia@example.com tom ") {
		t.Errorf("the list: %s", names)
	}
	f.wants("MIA@Example.com ", good, true) // a phone's keyboard
	f.wants("tom", good+" ", false)         // nothing is trimmed from a password
	f.wants("tom", strings.ToUpper(good), false)
	var field *FieldError
	for _, name := range []string{"", "Mia", "mia ", "a:b", "mıa", "mia\x00", strings.Repeat("a", 65), "мia", "a/b", "-\n"} {
		if _, err := f.Add(t.Context(), name, good, nil); !errors.As(err, &field) || field.Field != "name" {
			t.Errorf("the name %q: %v", name, err)
		}
		if _, err := f.User(t.Context(), name); !errors.Is(err, ErrNoUser) {
			t.Errorf("the user %q: %v", name, err)
		}
	}
	for _, scopes := range [][]string{{""}, {"a b"}, {"a", "a"}, {strings.Repeat("a", 65)}, {`a"`}} {
		if _, err := f.Add(t.Context(), "x", good, scopes); !errors.As(err, &field) || field.Field != "scopes" {
			t.Errorf("the scopes %q: %v", scopes, err)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	f := open(t, nil, quick)
	for password, why := range map[string]string{
		"":                                 "characters",
		"fourteen chars":                   "characters",
		"ééééééééé":                        "characters", // 18 bytes
		strings.Repeat("ab c", 257):        "1024 bytes",
		"correct horse\nbattery":           "type",
		"correct horse\xffbattery":         "type",
		"password1234567":                  "tried first",
		"PASSWORD!!!2026":                  "tried first",
		"passwordpassword":                 "tried first",
		"abcabcabcabcabc":                  "tried first",
		"aaaaaaaaaaaaaaaaaaaa":             "tried first",
		"123456789012345":                  "tried first",
		"abcdefghijklmnopqrst":             "tried first",
		"poiuytrewq0987654":                "tried first",
		"qwertyuiopasdfghjkl":              "tried first",
		"i am Mia.Example today":           "name",
		"mia.example@example.com and more": "name",
		"my MIA.EXAMPLE password":          "name",
	} {
		err := f.CheckPassword("mia.example@example.com", password)
		var field *FieldError
		if !errors.As(err, &field) || field.Field != "password" || !strings.Contains(field.Message, why) {
			t.Errorf("%.30q: %v, want %s", password, err, why)
		}
		if password != "" && err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%q stands in its error", password)
		}
	}
	for _, password := range []string{
		good, "fifteen chars 1", "éàüéöàè12345678", "  leading and trailing  ", strings.Repeat("ab c", 256)[:1000] + " other",
		"日本語のパスワードは長くても使えます", "dragonfly sings mice",
	} {
		if err := f.CheckPassword("mia", password); err != nil {
			t.Errorf("%q: %v", password, err)
		}
	}
	u, err := New(Options{Authority: f.a, Params: quick, MinLength: 8})
	if err != nil || u.CheckPassword("tom", "plenty-8") != nil || u.CheckPassword("tom", "dragon12") == nil || u.CheckPassword("tom", "seven77") == nil {
		t.Errorf("with a setting of eight: %v", err)
	}
	for _, n := range []int{7, 65, -1} {
		if _, err := New(Options{Authority: f.a, MinLength: n}); err == nil {
			t.Errorf("a least length of %d is taken", n)
		}
	}
}

// Whoever asks must not learn which names there are: the answer is the same, and so is the work.
func TestSameWork(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	f.add("gone")
	yes := true
	if _, err := f.Update(t.Context(), "gone", Change{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct{ name, password string }{
		{"mia", bad}, {"nobody", bad}, {"nobody", good}, {"gone", bad}, {"gone", good}, {"", bad}, {"not a name", bad}, {"-", bad},
		{"日本", bad}, {"a:b", bad}, {strings.Repeat("x", 2000), bad}, {"mia", ""},
	} {
		f.pass(time.Hour)
		before := f.Stats().Hashes
		v, err := f.verify(try.name, try.password)
		if v != nil || err != ErrWrong {
			t.Errorf("%.20s: %v", try.name, err)
		}
		if n := f.Stats().Hashes - before; n != 1 {
			t.Errorf("%.20s: %d hashes", try.name, n)
		}
	}
	before := f.Stats().Hashes
	if _, err := f.verify("mia", strings.Repeat("x", MaxPassword+1)); err != ErrWrong || f.Stats().Hashes != before {
		t.Errorf("a long password: %v", err)
	}
	for _, name := range []string{"nobody", "not a name", "日本"} {
		if strings.Contains(f.log.String(), name) {
			t.Errorf("the log has the name %q, which may be a password: %s", name, f.log.String())
		}
	}
}

func TestRehash(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	strong := f.list(Params{Memory: 128, Time: 2, Threads: 1})
	old, _, _ := f.read(t.Context(), "mia")
	if _, err := strong.Verify(t.Context(), "mia", bad, From{}); err != ErrWrong {
		t.Fatal(err)
	}
	if e, _, _ := f.read(t.Context(), "mia"); e.Version != old.Version {
		t.Error("a wrong password changes the hash")
	}
	s := f.signIn("mia", afterlogin.KindSession)
	if _, err := strong.Verify(t.Context(), "mia", good, From{}); err != nil {
		t.Fatal(err)
	}
	e, d, _ := f.read(t.Context(), "mia")
	if !strings.Contains(d.Hash, "m=128,t=2,p=1$") || e.Version == old.Version {
		t.Errorf("the hash is the old one: %s", d.Hash[:30])
	}
	if !f.alive(s) {
		t.Error("a new hash of the same password ends sessions")
	}
	f.wants("mia", good, true) // and a node with the old parameters takes it, and leaves it alone
	if again, _, _ := f.read(t.Context(), "mia"); again.Version != e.Version {
		t.Error("the hash went back")
	}
	// The user changes while the new hash is made: that wins, and the sign-in goes on.
	if got, _ := strong.rehash(t.Context(), old, d, good); got != old {
		t.Error("a rehash that lost says that it won")
	}
	f.wants("mia", good, true)
}

func TestParams(t *testing.T) {
	f := open(t, nil, quick)
	for _, p := range []Params{{Memory: 7, Time: 1, Threads: 1}, {Memory: 64, Threads: 1}, {Memory: 64, Time: 1}, {Memory: 2 << 20, Time: 1, Threads: 1}, {Memory: 64, Time: 65, Threads: 1}} {
		if _, err := New(Options{Authority: f.a, Params: p}); err == nil {
			t.Errorf("%+v are taken", p)
		}
	}
	// A record asks for no more work than the bounds, whatever it says.
	for _, hash := range []string{"", "$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5a2V5", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$a2V5a2V5a2V5a2V5a2V5a2V5", "$argon2id$v=19$m=64,t=1,p=1$$"} {
		if _, _, err := f.hasher.compare(good, hash); err == nil {
			t.Errorf("%s is taken", hash)
		}
	}
}

// A browser is known by its cookie, to this installation, for this name, and for a year.
func TestDevice(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	f.add("tom")
	v, err := f.verify("mia", good)
	if err != nil || v.Device == "" || len(v.Device) > MaxDevice {
		t.Fatalf("%+v, %v", v, err)
	}
	c := v.Device
	if !f.Known("mia", c) || f.Known("tom", c) || f.Known("nobody", c) || f.Known("MIA", c) {
		t.Error("the cookie is not that of the user, or of others, too")
	}
	for i := range c {
		b := []byte(c)
		b[i] ^= 1
		if f.Known("mia", string(b)) {
			t.Errorf("the cookie with another byte %d is taken", i)
		}
	}
	if stranger := open(t, nil, quick); stranger.Known("mia", c) {
		t.Error("another installation takes the cookie")
	}
	// The same browser: it keeps its cookie for a month.
	if v, err = f.Verify(t.Context(), "mia", good, From{Device: c}); err != nil || v.Device != "" {
		t.Errorf("%+v, %v", v, err)
	}
	// Somebody else at the same browser: both are known.
	v, err = f.Verify(t.Context(), "tom", good, From{Device: c})
	if err != nil || !f.Known("mia", v.Device) || !f.Known("tom", v.Device) {
		t.Errorf("%+v, %v", v, err)
	}
	shared := v.Device
	f.pass(31 * 24 * time.Hour)
	if v, err = f.Verify(t.Context(), "mia", good, From{Device: shared}); err != nil || !f.Known("mia", v.Device) || !f.Known("tom", v.Device) || strings.Count(v.Device, ".") != 1 {
		t.Errorf("after a month: %+v, %v", v, err)
	}
	f.pass(DeviceAge)
	if f.Known("mia", shared) || f.Known("tom", v.Device) {
		t.Error("a cookie is good for more than a year")
	}
	// Many people at one browser: the cookie stays small.
	long := ""
	for _, name := range []string{"a1", "a2", "a3", "a4", "a5", "a6"} {
		f.add(name)
		v, err := f.Verify(t.Context(), name, good, From{Device: long})
		if err != nil || len(v.Device) > MaxDevice || !f.Known(name, v.Device) {
			t.Fatalf("%s: %v", name, err)
		}
		long = v.Device
	}
	if f.Known("a1", long) || !f.Known("a3", long) {
		t.Error("the oldest does not give way")
	}
	// Keys that are rotated stay good, those that are dead do not.
	key := f.ring.Active(keyring.CSRF)
	if _, err := f.ring.Rotate(keyring.CSRF); err != nil {
		t.Fatal(err)
	}
	if !f.Known("a6", long) {
		t.Error("a rotation makes every browser a new one")
	}
	if err := f.ring.SetState(keyring.CSRF, key.ID, keyring.Dead); err != nil {
		t.Fatal(err)
	}
	if f.Known("a6", long) {
		t.Error("a dead key is taken")
	}
	// Without keys there are no cookies.
	u, err := New(Options{Authority: f.a, Params: quick, Now: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := u.Verify(t.Context(), "mia", good, From{Device: c}); err != nil || v.Device != "" || u.device("mia", c) != nil {
		t.Errorf("without keys: %+v, %v", v, err)
	}
}

func FuzzDevice(f *testing.F) {
	x := open(f, memstore.New(), quick)
	f.Add("mia", x.newPass("mia", 1))
	f.Add("mia", x.newPass("mia", 1)+"."+x.newPass("tom", 1))
	f.Add("mia", "....")
	f.Fuzz(func(t *testing.T, name, cookie string) {
		mine := false
		for _, pass := range strings.Split(cookie, ".") {
			if p := x.checkPass(name, pass); p != nil {
				mine = true
				if len(p.id) != 13 {
					t.Errorf("an id of %d bytes", len(p.id))
				}
			}
		}
		if x.Known(name, cookie) && !mine {
			t.Errorf("%q knows %q without a pass", cookie, name)
		}
		if next := x.Remember(&User{Name: "mia", PasswordChanged: time.UnixMilli(1)}, cookie); next != "" && (len(next) > MaxDevice || !x.Known("mia", next) || strings.ContainsAny(next, "; ,\"\r\n")) {
			t.Errorf("after %q: %q", cookie, next)
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"mia", "MIA ", "mıa", "K", "ſ", "a\x00", "\xff", "\t@\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		name := FoldName(typed)
		if FoldName(name) != name {
			t.Errorf("%q folds twice", typed)
		}
		if CheckName(name) == nil {
			for i := range len(name) {
				if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' || 'A' <= c && c <= 'Z' {
					t.Errorf("%q is a name", name)
				}
			}
			if len(name) > maxName || len(name) == 0 || !strings.EqualFold(strings.Trim(typed, " \t"), name) {
				t.Errorf("%q became %q", typed, name)
			}
		}
	})
}
