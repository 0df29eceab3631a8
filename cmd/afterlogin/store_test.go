package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// installation makes a data directory with n sessions, and returns a token for every hundredth of them.
func installation(t *testing.T, n int) (dir string, tokens []string) {
	t.Helper()
	dir = t.TempDir()
	master, err := keyring.Master(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(filepath.Join(dir, "keys.json"), master)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := memstore.New() // signing in is quicker there
	a, err := afterlogin.New(afterlogin.Config{Store: m, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range n {
		got, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint("s", i%97)})
		if err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			tokens = append(tokens, got.Token.Reveal())
		}
	}
	move(t, m, s)
	return dir, tokens
}

func move(t *testing.T, from, to store.Bulk) {
	t.Helper()
	for b, err := range from.Scan(t.Context(), "") {
		if err == nil {
			err = to.Load(t.Context(), b.Records)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// validAll fails unless every token is good in the data directory.
func validAll(t *testing.T, dir, master string, tokens []string) {
	t.Helper()
	key, err := keyring.Master(master)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(filepath.Join(dir, "keys.json"), key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, token := range tokens {
		if _, err := a.Validate(t.Context(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true}); err != nil {
			t.Fatalf("a token after the migration: %v", err)
		}
	}
}

// runStore runs "afterlogin store …" and returns what it prints.
func runStore(t *testing.T, wd string, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "afterlogin", append([]string{"store"}, args...)...)
	c.Dir = wd
	out, err := c.CombinedOutput()
	return string(out), err
}

// A migration that is killed, again and again, comes to its end, and all tokens are good.
func TestMigrateKilled(t *testing.T) {
	t.Parallel()
	dir, tokens := installation(t, 20_000)
	wd, to := t.TempDir(), filepath.Join(t.TempDir(), "data")
	args := []string{"store", "migrate", "--from", dir, "--to", to}
	kills, begun := 0, false
	for after := 250 * time.Millisecond; ; after += after / 4 {
		var out bytes.Buffer
		c := exec.Command("afterlogin", args...)
		c.Dir, c.Stdout, c.Stderr = wd, &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		killer := time.AfterFunc(after, func() { c.Process.Kill() })
		err := c.Wait()
		killed := !killer.Stop()
		if err == nil {
			break
		}
		if !killed {
			t.Fatalf("after %d kills: %v\n%s", kills, err, &out)
		}
		kills++
		// Killed with its work done, before it could say so: the checkpoint is the last thing that goes.
		if _, err := os.Stat(filepath.Join(wd, "afterlogin-migrate.json")); err == nil {
			begun = true
		} else if begun {
			break
		}
	}
	t.Logf("killed %d times", kills)
	if _, err := os.Stat(filepath.Join(wd, "afterlogin-migrate.json")); err == nil {
		t.Error("the checkpoint is left")
	}
	out, err := runStore(t, wd, "check", "--store", to, "--master-key-file", filepath.Join(dir, "master.key"))
	if err != nil || !strings.Contains(out, "20,097 records, all in order") {
		t.Errorf("%v\n%s", err, out)
	}
	validAll(t, to, filepath.Join(dir, "master.key"), tokens)
}

// Ctrl-C stops it at once, and says how to go on.
func TestMigrateInterrupted(t *testing.T) {
	t.Parallel()
	dir, _ := installation(t, 20_000)
	wd, to := t.TempDir(), filepath.Join(t.TempDir(), "data")
	var out bytes.Buffer
	c := exec.Command("afterlogin", "store", "migrate", "--from", dir, "--to", to)
	c.Dir, c.Stdout, c.Stderr = wd, &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	checkpoint := filepath.Join(wd, "afterlogin-migrate.json")
	for range 100_000 {
		if _, err := os.Stat(checkpoint); err == nil {
			break
		}
		if t.Context().Err() != nil {
			break
		}
		<-time.After(100 * time.Microsecond)
	}
	c.Process.Signal(os.Interrupt)
	c.Wait()
	if got := c.ProcessState.ExitCode(); got == exitInterrupted {
		if !strings.Contains(out.String(), "the same command goes on from here, by "+checkpoint) || !strings.HasSuffix(out.String(), "afterlogin: interrupted\n") {
			t.Errorf("it says\n%s", &out)
		}
	} else if got != exitOK { // it was quicker
		t.Fatalf("exit code %d\n%s", got, &out)
	} else {
		return
	}
	if got, err := runStore(t, wd, "migrate", "--from", dir, "--to", to); err != nil || !strings.Contains(got, "going on with what "+checkpoint) || !strings.Contains(got, "copied 20,097 records") {
		t.Errorf("%v\n%s", err, got)
	}
}

// A destination with records and no keys is refused, and is left as it was: with keys that are not its own, nobody could tell any
// more what is wrong with it.
func TestRefusedDestinationGetsNoKeys(t *testing.T) {
	t.Parallel()
	dir, _ := installation(t, 10)
	used, _ := installation(t, 10)
	if err := os.Remove(filepath.Join(used, "keys.json")); err != nil {
		t.Fatal(err)
	}
	master, wd := filepath.Join(dir, "master.key"), t.TempDir()
	file := filepath.Join(wd, "backup")
	if out, err := runStore(t, wd, "backup", "--store", dir, "--out", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{"migrate", "--from", dir, "--to", used}, {"restore", "--in", file, "--store", used}} {
		out, err := runStore(t, wd, append(args, "--master-key-file", master)...)
		if err == nil || !strings.Contains(out, "holds records already") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
		if _, err := os.Stat(filepath.Join(used, "keys.json")); err == nil {
			t.Fatalf("%s: there are keys in the destination", args[0])
		}
	}
}

// There and back: to Redis and to PostgreSQL, with a password that is nowhere printed, and all tokens are good.
func TestMigrateShared(t *testing.T) {
	t.Parallel()
	secret := rand.Text()
	redis, err := servers.StartRedis(t.TempDir(), "appendonly yes", "user shop on >"+secret+" ~* &* +@all")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { redis.Stop() })
	postgres, err := servers.StartPostgres(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { postgres.Stop() })
	dir, tokens := installation(t, 3000)
	wd := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(wd, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	master := filepath.Join(dir, "master.key")
	inRedis, inPostgres := put("redis", "redis://shop:"+secret+"@"+redis.Addr), put("postgres", postgres.URL)
	back := filepath.Join(t.TempDir(), "data")
	do := func(want string, args ...string) {
		t.Helper()
		out, err := runStore(t, wd, append(args, "--master-key-file", master)...)
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("store %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		if strings.Contains(out, secret) {
			t.Errorf("store %s prints the password", args[0])
		}
	}
	do("copied 3,097 records and the keys", "migrate", "--from", dir, "--to-file", inRedis)
	do("3,098 records, all in order", "check", "--store-file", inRedis)
	do("copied 3,097 records and the keys", "migrate", "--from-file", inRedis, "--to-file", inPostgres)
	do("3,098 records, all in order", "check", "--store-file", inPostgres)
	do("copied 3,097 records and the keys", "migrate", "--from-file", inPostgres, "--to", back)
	do("3,097 records, all in order", "check", "--store", back)
	validAll(t, back, master, tokens)

	// A backup of a store that servers share, restored into an embedded one.
	file := filepath.Join(wd, "backup")
	if out, err := runStore(t, wd, "backup", "--store-file", inRedis, "--out", file); err != nil || !strings.Contains(out, "wrote 3,097 records") {
		t.Fatalf("%v\n%s", err, out)
	}
	restored := filepath.Join(t.TempDir(), "data")
	do("restored 3,097 records", "restore", "--in", file, "--store", restored, "--keep-sessions")
	validAll(t, restored, master, tokens)

	// The records of another installation do not go into the same store.
	other, _ := installation(t, 1)
	out, err := runStore(t, wd, "migrate", "--from", other, "--to-file", inRedis, "--merge")
	if err == nil || !strings.Contains(out, "master key") {
		t.Errorf("another installation: %v\n%s", err, out)
	}
}
