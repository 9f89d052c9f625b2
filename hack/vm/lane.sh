#!/bin/bash
# hack/vm/lane.sh MODE, in the guest: runs the programs that test.sh has put into the plan, one after the other. Their output goes to
# out/MODE-PROGRAM.log, with the status and the time at its end; a line for each test goes to the console.
mode=$1
export PATH=/host/bin:$PATH CRID_PROJECT=/host CRID_BUILD_DIR=/host/.build CRID_TEST_BIN=/host/bin CNI_BIN=/host/bin/cni TMPDIR=/scratch/tmp
export CRID_E2E_NETWORK=plain CRID_E2E_GUEST=1 # iptables rules cost as much as the rest of a pod here; /etc and /usr are nobody's
[ "$mode" = cgroupfs ] || export CRID_E2E_CGROUP_DRIVER=systemd
mkdir -p /scratch/tmp /scratch/var
chmod 1777 /scratch/tmp
mount --bind /scratch/var /var/tmp # writable layers on a disk, and room for them

bad=0
while read -r program regexp; do
	log=out/$mode-${program%.test}.log
	echo "-- $program"
	start=$(date +%s)
	(cd /scratch/tmp && timeout -k 10 1400 "/host/tests/$program" -test.v -test.timeout 23m -test.run "$regexp") 2>&1 | tee "$log" | grep --line-buffered -E '^(--- |panic|FAIL)'
	status=${PIPESTATUS[0]}
	printf 'status %d\ntook %d\n' "$status" $(($(date +%s) - start)) >>"$log"
	[ "$status" = 0 ] || bad=1
done <plan
exit $bad
