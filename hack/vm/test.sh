#!/bin/bash
# hack/vm/test.sh: what `make test-v2` runs. The end-to-end tests in a guest with cgroup v2, once with the cgroupfs driver and once under
# systemd with its driver; a table and a line of counts at the end. Test programs are built here and only run there.
#
# Before these, on a host with the hybrid layout, a smoke on the host itself: its cgroup2 hierarchy, which has no controllers, is mounted over
# /sys/fs/cgroup in a mount namespace of its own ("bare"). It shows paths, freezing, killing and removal on v2, in seconds.
#
#   MODES="bare cgroupfs systemd"   which of them
#   FOCUS=REGEXP               only tests that match, of all packages and of the validation suite
#   LIMIT=SECONDS              for each mode, from boot to power off (default 1500)
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${CRID_BUILD_DIR:-$PWD/.build}
STAGE=$BUILD/vm/stage RESULTS=$PWD/.results/v2
MODES=${MODES:-bare cgroupfs systemd} LIMIT=${LIMIT:-1500} FOCUS=${FOCUS:-}

# Which tests of which package run under which mode: MODE PACKAGE REGEXP. Pod work is some twelve times slower in the guest than on the host,
# so what has nothing to do with cgroups, namespaces or the kernel's version is left to the host.
SELECTION='
bare     ./container/cgroup  .
bare     ./e2e/v2            Test(AFrozen|TheKernelKills|Children)
bare     ./e2e/core          Test(TheStatus|ThePodsStatus|Grace|ADeath|RemoveOf|ExitCodes)
bare     ./e2e/restart       Test(ACrashHurts|AShimIsKilled)
cgroupfs ./container/cgroup  .
cgroupfs ./container/machine .
cgroupfs ./e2e/v2            .
cgroupfs ./e2e               TestUserNamespace
cgroupfs ./e2e/core          Test(TheStatus|ThePods|Filters|Grace|ASecondStop|StoppingAPod|RemoveOf|ADeath|WhatContainers|APodWide|ATargets|TheHostsNames|Sysctls|Limits|Statistics|Metrics|ExitCodes|ExecHas|Lines|EventsIn)
cgroupfs ./e2e/restart       Test(ACrashHurts|AShimIsKilled)
cgroupfs ./e2e/critest       AppArmor
systemd  ./container/cgroup  .
systemd  ./container/machine .
systemd  ./e2e/v2            .
systemd  ./e2e               TestUserNamespace
systemd  ./e2e/core          Test(TheStatus|ThePods|Grace|ADeath|APodWide|Limits|OutOf|Statistics)
systemd  ./e2e/restart       Test(ACrashHurts|AShimIsKilled)
'

say() { echo "test-v2: $*"; }

# program PACKAGE: the name of its test program (the validation suite's runner is none, but is handled like one)
program() { local p=${1#./}; echo "${p//\//-}.test"; }

stage() {
	local mode package regexp f
	mkdir -p "$STAGE"/{bin,hack,contrib,e2e/images,.build/images,tests}
	rm -rf "$STAGE"/tests/* "$STAGE"/out
	mkdir -p "$STAGE/out"
	cp -a bin/{crid,runc,containerd-shim-runc-v2,crictl} "$STAGE/bin/"
	rm -rf "$STAGE/bin/cni" "$STAGE/e2e/images/guest"
	cp -a bin/cni "$STAGE/bin/"
	cp -a contrib/crid.service "$STAGE/contrib/"
	cp -a hack/parts.txt "$STAGE/hack/"
	cp -a hack/vm/lane.sh "$STAGE/hack/"
	cp -a e2e/images/guest "$STAGE/e2e/images/"
	for f in busybox pause nnp web; do cp -a "$BUILD/images/$f" "$BUILD/images/$f.stamp" "$STAGE/.build/images/"; done
	while read -r mode package regexp; do
		f=$(program "${package:-}")
		[ -n "$mode" ] && [ ! -e "$STAGE/tests/$f" ] || continue
		if [ "$package" = ./e2e/critest ]; then
			go build -o "$STAGE/tests/$f" "$package"
			cp -a bin/critest "$STAGE/bin/"
			continue
		fi
		go test -c -tags e2e -o "$STAGE/tests/$f" "$package" >/dev/null || { say "$package does not compile"; return 1; }
		[ -e "$STAGE/tests/$f" ] || say "$package has no tests" # go test -c makes nothing then
	done <<<"$SELECTION"
}

# bare: the plan on the host, with nothing but its cgroup2 hierarchy in sight
bare() {
	[ -d /sys/fs/cgroup/unified ] || { say "bare: left out, this host does not have the hybrid layout"; return 0; }
	(cd "$STAGE" && exec unshare -m --propagation private bash -c \
		'mount --make-rshared / && mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup && exec timeout -k 10 300 bash hack/lane.sh bare')
}

# lane MODE: one boot. Each line of its plan is a test program and what to run of it.
lane() {
	local mode package regexp init=tiny code=0
	[ "$1" = cgroupfs ] || init=systemd
	while read -r mode package regexp; do
		[ "$mode" = "$1" ] && [ -e "$STAGE/tests/$(program "$package")" ] || continue
		echo "$(program "$package") ${FOCUS:-$regexp}"
	done <<<"$SELECTION" >"$STAGE/plan"
	if [ "$1" = bare ]; then
		bare || code=$?
	else
		INIT=$init SHARE=$STAGE LIMIT=$LIMIT hack/vm/vm.sh run "bash hack/lane.sh $1" || code=$?
	fi
	mkdir -p "$RESULTS"
	cp "$STAGE"/out/"$1"-* "$RESULTS/" 2>/dev/null || :
	[ $code = 0 ] || say "$1: ended with $code"
	return $code
}

# table: counts by mode and program, from the logs; sets PASSED FAILED SKIPPED
table() {
	local file mode name p f s time
	PASSED=0 FAILED=0 SKIPPED=0
	printf '\n%-10s %-26s %7s %7s %8s %8s\n' driver tests passed failed skipped seconds
	for file in "$RESULTS"/*.log; do
		[ -e "$file" ] || continue
		name=$(basename "$file" .log) mode=${name%%-*}
		p=$(grep -c '^--- PASS' "$file" || :) f=$(grep -c '^--- FAIL' "$file" || :) s=$(grep -c '^--- SKIP' "$file" || :)
		if grep -qE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$file"; then # the validation suite's own count
			read -r p f s < <(awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ {print $1, $3, $5}' "$file")
		fi
		time=$(awk '/^took / {print $2}' "$file")
		if ! grep -q '^status 0$' "$file" && [ "$f" = 0 ]; then f=1; fi # it died, or ran out of time
		printf '%-10s %-26s %7d %7d %8d %8s\n' "$mode" "${name#*-}" "$p" "$f" "$s" "${time:--}"
		PASSED=$((PASSED + p)) FAILED=$((FAILED + f)) SKIPPED=$((SKIPPED + s))
	done
	# a reason stands before the line that it is for
	awk '/^=== RUN/ {why = ""} /^ +[a-z_0-9]+\.go:[0-9]+: / {why = $0; sub(/^[^:]*:[0-9]+: /, "", why)} /^--- SKIP/ {print "skipped " $3 ": " why}' \
		"$RESULTS"/*.log | sort -u
	grep -hE '^ *--- FAIL' "$RESULTS"/*.log 2>/dev/null | sed 's/^ *--- FAIL:/failed/' || :
	grep -hE '^  FAILED ' "$RESULTS"/*.log 2>/dev/null || :
}

main() {
	local mode bad=0
	hack/vm/vm.sh build
	exec 8>"$BUILD/vm/stage.lock"
	flock -n 8 || { say "another run uses $STAGE; wait for its end, or set CRID_BUILD_DIR"; return 1; }
	stage
	rm -rf "$RESULTS"
	for mode in $MODES; do
		case $mode in
		bare) say "cgroup v2 without controllers, on this machine" ;;
		*) say "cgroup v2, driver $mode" ;;
		esac
		lane "$mode" 8>&- || bad=1
	done
	table
	echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
	[ "$bad" = 0 ] && [ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
}
main
exit
