#!/bin/bash
# hack/fuzz.sh: every fuzz test of the project for $FUZZTIME each (default 20s). A find is left in testdata/fuzz of its package.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0 n=0
while IFS=: read -r file name; do
	n=$((n + 1))
	echo "== $(dirname "$file") $name =="
	go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-20s}" "./$(dirname "$file")" || bad=$((bad + 1))
done < <(grep -rHoE --include='*_test.go' --exclude-dir='.*' '^func Fuzz[A-Za-z0-9_]*' . | sed 's#^\./##; s#func ##' | sort)
echo "$((n - bad)) passed, $bad failed"
[ "$bad" = 0 ] && [ "$n" -gt 0 ]
