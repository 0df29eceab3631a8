#!/usr/bin/env bash
# Runs every test, with the race detector, and installs what they need (Debian packages and npm modules, into the
# machine and into node_modules of test/browser and test/oauth).
#
#   scripts/test.sh          the short form, for every change
#   scripts/test.sh --long   more of the same: fuzzing, more crashes, the figures of bench
set -euo pipefail
cd "$(dirname "$0")/.."

long=
case "${1:-}" in
'') ;;
--long) long=1 ;;
*)
	echo "usage: scripts/test.sh [--long]" >&2
	exit 2
	;;
esac

step() { printf '\n== %s\n' "$*"; }

install() { # install COMMAND|FILE PACKAGE…
	local command=$1
	shift
	[ ! -e "$command" ] || return 0
	PATH=$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' :) command -v "$command" >/dev/null && return
	step "installing $*"
	if ! command -v apt-get >/dev/null; then
		echo "scripts/test.sh needs $command: please install it" >&2
		exit 1
	fi
	local sudo=
	if [ "$(id -u)" != 0 ]; then
		sudo=sudo
		command -v sudo >/dev/null || {
			echo "scripts/test.sh needs $command: please install $*" >&2
			exit 1
		}
	fi
	$sudo apt-get update -qq
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

install gcc gcc libc6-dev # the race detector
install node nodejs npm
install chromium chromium
# Servers of which the tests start their own, on free loopback ports.
install redis-server redis-server
install redis-sentinel redis-sentinel
install postgres postgresql
install nginx nginx-light
install caddy caddy
install haproxy haproxy
install apache2 apache2-bin
install promtool prometheus # for the alert rules in deploy/
install /usr/share/lua/5.3/socket.lua lua-socket # for Apache
for dir in test/browser test/oauth; do
	[ -d "$dir/node_modules" ] && [ "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ] ||
		(step "npm ci in $dir" && cd "$dir" && npm ci --no-audit --no-fund --silent)
done

step "format, vet"
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "gofmt would change:" $unformatted >&2
	exit 1
fi
go vet -tags browser work

step "tests, with the race detector"
export AFTERLOGIN_LONG=$long
# Published examples (RFC 7520), where they lie beside the checkout; without them their test says that it had none.
[ ! -d ../shared/vectors ] || export AFTERLOGIN_VECTORS=${AFTERLOGIN_VECTORS:-$(cd ../shared/vectors && pwd)}
# Those that kill, hang and time servers come last, one after the other: beside other tests they would time those.
timed='/store/(redisstore|pgstore)$|/test/history$|/examples/cluster$'
go test -race -tags browser -timeout 30m $(go list -tags browser work | grep -Ev "$timed")
go test -race -tags browser -timeout 40m -p 1 $(go list -tags browser work | grep -E "$timed")

if [ -n "$long" ]; then
	step "fuzzing, a minute each"
	for dir in $(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
		for target in $(grep -ho '^func Fuzz[A-Za-z0-9]*' "$dir"/*_test.go | sed 's/func //'); do
			(cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime 60s .)
		done
	done
	step "figures"
	go run ./bench
fi
