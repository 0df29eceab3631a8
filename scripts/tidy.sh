#!/usr/bin/env bash
# Tidies every module. Nested modules require their siblings at a version that only go.work replaces, which `go mod tidy`
# does not see; so each is tidied with the siblings replaced in a copy of its go.mod, and the replacements dropped again.
set -euo pipefail
cd "$(dirname "$0")/.."
export GOWORK=off
base=$(go list -m)
mapfile -t modules < <(find . -mindepth 2 -name go.mod -not -path '*/node_modules/*' -printf '%h\n' | sed 's|^\./||' | sort)
go mod tidy
for m in "${modules[@]}"; do
	(
		cd "$m"
		cp go.mod .tidy.mod
		[ ! -f go.sum ] || cp go.sum .tidy.sum
		root=$(realpath --relative-to=. "$OLDPWD")
		go mod edit -replace="$base@v0.1.0=$root" .tidy.mod
		for s in "${modules[@]}"; do
			[ "$s" = "$m" ] || go mod edit -replace="$base/$s@v0.1.0=$root/$s" .tidy.mod
		done
		go mod tidy -modfile=.tidy.mod
		go mod edit -dropreplace="$base@v0.1.0" .tidy.mod
		for s in "${modules[@]}"; do
			[ "$s" = "$m" ] || go mod edit -dropreplace="$base/$s@v0.1.0" .tidy.mod
		done
		mv .tidy.mod go.mod
		[ ! -f .tidy.sum ] || mv .tidy.sum go.sum
	)
done
