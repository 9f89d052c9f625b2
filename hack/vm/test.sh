#!/bin/bash
# hack/vm/test.sh: the end-to-end core in the guest with cgroup v2, once with the cgroupfs driver and once under systemd with its own. Test programs are
# built here and only run there. FOCUS=regexp chooses tests; LIMIT is for each of the two runs.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
OUT=.build/vm-tests
export LIMIT=${LIMIT:-2400}
hack/vm/guest.sh build || exit 1
rm -rf "$OUT"
mkdir -p "$OUT"
for p in $(go list -tags e2e -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./e2e/...); do
	CGO_ENABLED=0 go test -c -tags e2e -o "$OUT/$(basename "$p").test" "$p" || exit 1
done
CGO_ENABLED=0 go build -o "$OUT/critest" ./e2e/critest || exit 1
failed=0
for init in ${INITS:-plain systemd}; do
	driver=cgroupfs
	[ "$init" = plain ] || driver=systemd
	echo "== cgroup v2, driver $driver =="
	# The suite's specs that cgroups have a part in; all of it would take an hour.
	INIT=$init hack/vm/guest.sh run "
		export CRID_PROJECT=/host CRID_BUILD_DIR=/host/.build PATH=/host/bin:\$PATH CRID_E2E_CGROUP_DRIVER=$driver
		bad=0
		for t in $OUT/*.test; do
			echo \"-- \$t\"
			\$t -test.timeout 30m -test.run '${FOCUS:-.}' || bad=1
		done
		[ -n '${FOCUS:-}' ] || $OUT/critest -no-websocket -out /tmp/critest -limit 30m -focus '${SPECS:-resources|OOM|oom|AppArmor|listing container stats|basic operations on container|PodSandbox}' || bad=1
		exit \$bad" | tee "$OUT/$init.log" || failed=1
done
passed=$(grep -chE '^(--- PASS|ok|PASS)' "$OUT"/*.log | awk '{n += $1} END {print n + 0}')
[ $failed = 0 ] && echo "cgroup v2: all of it passed" || echo "cgroup v2: something failed, see $OUT/*.log (${passed} packages passed)"
exit $failed
