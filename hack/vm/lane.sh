#!/bin/bash
# hack/vm/lane.sh MODE, in the guest (or, for MODE bare, on the host): runs the programs that test.sh has put into the plan, one after the other.
# Their output goes to out/MODE-PROGRAM.log, with the status and the time at its end; a line for each test goes to the console.
mode=$1
here=$PWD
export PATH=$here/bin:$PATH CRID_PROJECT=$here CRID_BUILD_DIR=$here/.build CRID_TEST_BIN=$here/bin CNI_BIN=$here/bin/cni
export CRID_E2E_NETWORK=plain # under emulation iptables rules cost as much as the rest of a pod
[ "$mode" != systemd ] || export CRID_E2E_CGROUP_DRIVER=systemd
if [ "$mode" = bare ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
else
	export CRID_E2E_GUEST=1 TMPDIR=/scratch/tmp # nobody else's machine: tests may install things
	work=/scratch/tmp
	mkdir -p /scratch/tmp /scratch/var
	chmod 1777 /scratch/tmp
	mount --bind /scratch/var /var/tmp # writable layers on a disk, and room for them
	command -v sudo >/dev/null || printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo # the validation suite loads profiles with it
	chmod -f +x /usr/local/bin/sudo
fi

bad=0
while read -r program regexp; do
	log=$here/out/$mode-${program%.test}.log
	echo "-- $program"
	start=$(date +%s)
	args=(-test.v -test.timeout 23m -test.run "$regexp")
	[ "$program" != e2e-critest.test ] || args=(-no-websocket -out "$work/critest" -limit 20m -focus "$regexp")
	(cd "$work" && exec timeout -k 10 1400 "$here/tests/$program" "${args[@]}") 2>&1 | tee "$log" | grep --line-buffered -E '^(--- |panic|FAIL|[0-9]+ passed|  (FAILED|skipped) )'
	status=${PIPESTATUS[0]}
	printf 'status %d\ntook %d\n' "$status" $(($(date +%s) - start)) >>"$log"
	[ "$status" = 0 ] || bad=1
done <plan
exit $bad
