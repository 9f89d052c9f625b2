#!/bin/bash
# hack/run.sh up|stop|reset: a crid of one's own to look at, with everything that it keeps under .run in the source tree.
#
#   up      starts crid, imports the demo image, runs a pod and shows it (make run)
#   stop    ends crid; pods stay as they are, and the next "up" finds them (make stop)
#   reset   ends crid, then removes pods, images, network and files (make reset)
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$PWD/bin RUN=${CRID_RUN_DIR:-$PWD/.run} STATE=
NAME=crid-demo BRIDGE=criddemo0 SUBNET=${CRID_RUN_SUBNET:-10.248.0.0/24} IMAGE=localhost/crid/demo:1
[ "$(id -u)" = 0 ] || { echo "run: containers need root: sudo make ${MAKE_TARGET:-run}" >&2; exit 1; }

# A shim's socket has a path of at most 107 bytes and a name of 64, so the state's own path must be short.
STATE=$RUN/state
[ ${#STATE} -le 40 ] || STATE=/run/$NAME-$(printf %s "$RUN" | sha256sum | cut -c1-8)
CONFIG=$RUN/config.toml SOCKET=$STATE/crid.sock PIDFILE=$RUN/crid.pid LOG=$RUN/crid.log
CRICTL=(env -u CONTAINER_RUNTIME_ENDPOINT "$BIN/crictl" --config "$RUN/crictl.yaml")

say() { printf '%s\n' "$*"; }
die() { echo "run: $*" >&2; exit 1; }

# alive: does the pid file name a process that runs our crid? The file of the program may have been built anew meanwhile.
alive() {
	local exe
	PID=$(cat "$PIDFILE" 2>/dev/null) && [ -n "$PID" ] || return 1
	exe=$(readlink "/proc/$PID/exe" 2>/dev/null) || return 1
	[ "${exe% (deleted)}" = "$BIN/crid" ]
}

configure() {
	mkdir -p "$RUN"/{cni,ipam,certs.d,logs} # root and state are made by crid
	cat >"$CONFIG" <<-T
	version = 1
	root = "$RUN/root"
	state = "$STATE"
	address = "$SOCKET"
	cgroup_parent = "/$NAME"
	runtime_search_paths = ["$BIN"]
	[cni]
	conf_dir = "$RUN/cni"
	bin_dirs = ["$BIN/cni"]
	[registry]
	certs_dirs = ["$RUN/certs.d", "/etc/crid/certs.d", "/etc/containerd/certs.d"]
	[metrics]
	address = "127.0.0.1:0"
	[runtimes.runc]
	path = "$BIN/containerd-shim-runc-v2"
	options = { BinaryName = "$BIN/runc" }
	T
	cat >"$RUN/cni/10-$NAME.conflist" <<-J
	{ "cniVersion": "1.0.0", "name": "$NAME", "plugins": [
	  { "type": "bridge", "bridge": "$BRIDGE", "isGateway": true, "ipMasq": true, "hairpinMode": true,
	    "ipam": { "type": "host-local", "dataDir": "$RUN/ipam", "ranges": [[{ "subnet": "$SUBNET" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
	  { "type": "portmap", "capabilities": { "portMappings": true } } ] }
	J
	cat >"$RUN/crictl.yaml" <<-Y
	runtime-endpoint: unix://$SOCKET
	image-endpoint: unix://$SOCKET
	timeout: 30
	Y
	cat >"$RUN/pod.json" <<-J
	{ "metadata": { "name": "demo", "namespace": "default", "uid": "demo", "attempt": 0 },
	  "hostname": "demo", "log_directory": "$RUN/logs", "linux": { "cgroup_parent": "/$NAME/demo" } }
	J
	cat >"$RUN/container.json" <<-J
	{ "metadata": { "name": "hello", "attempt": 0 }, "image": { "image": "$IMAGE" }, "log_path": "hello_0.log", "linux": {},
	  "labels": { "io.kubernetes.pod.name": "demo", "io.kubernetes.pod.namespace": "default", "io.kubernetes.container.name": "hello" } }
	J
}

start() {
	if alive; then say "crid runs already, pid $PID"; return; fi
	setsid "$BIN/crid" --config "$CONFIG" --root "$RUN/root" --state "$STATE" --address "$SOCKET" >>"$LOG" 2>&1 </dev/null &
	local i pid=$!
	echo $pid >"$PIDFILE"
	for i in $(seq 200); do
		"${CRICTL[@]}" version >/dev/null 2>&1 && { say "crid runs, pid $(cat "$PIDFILE"), socket $SOCKET"; return; }
		kill -0 $pid 2>/dev/null || { tail -20 "$LOG" >&2; die "crid ended at once; all of its log: $LOG"; }
		sleep 0.05
	done
	tail -20 "$LOG" >&2
	die "crid does not answer on $SOCKET; its log: $LOG"
}

stop() {
	local i
	if ! alive; then say "crid does not run"; rm -f "$PIDFILE"; return; fi
	kill -TERM "$PID"
	for i in $(seq 150); do
		alive || { rm -f "$PIDFILE"; return; }
		sleep 0.1
	done
	die "crid (pid $PID) is still there 15 s after SIGTERM; its log: $LOG"
}

show() { say; say "\$ crictl ${*@Q}" | sed "s/'\([A-Za-z0-9_:./-]*\)'/\1/g"; "${CRICTL[@]}" "$@" 2>&1; }

demo_image() {
	local tar=.build/images/demo.tar
	if [ ! -f "$tar" ] || [ -n "$(find e2e/images -newer "$tar" -type f | head -1)" ]; then
		say "making the demo image (the first time: from busybox's source, about a minute)"
		mkdir -p .build/images
		go run ./e2e/images save -o "$tar"
	fi
	"$BIN/crid" --config "$CONFIG" images import "$tar"
}

up() {
	configure
	start
	"${CRICTL[@]}" inspecti "$IMAGE" >/dev/null 2>&1 || demo_image
	local pod container old
	pod=$("${CRICTL[@]}" pods --name demo --state ready -q | head -1)
	container=
	[ -z "$pod" ] || container=$("${CRICTL[@]}" ps --pod "$pod" --name hello -q | head -1)
	if [ -z "$container" ]; then
		for old in $("${CRICTL[@]}" pods --name demo -q); do "${CRICTL[@]}" rmp -f "$old" >/dev/null; done
		pod=$("${CRICTL[@]}" runp "$RUN/pod.json")
		container=$("${CRICTL[@]}" create "$pod" "$RUN/container.json" "$RUN/pod.json")
		"${CRICTL[@]}" start "$container" >/dev/null
		for _ in $(seq 50); do
			[ -z "$("${CRICTL[@]}" logs "$container" 2>/dev/null)" ] || break
			sleep 0.1
		done
	else
		say "the pod of the last time is still there"
	fi
	show images
	show pods
	show ps
	show logs "$container"
	show exec "$container" sh -c 'hostname; id; ip -4 -o addr show eth0'
	cat <<-T

	crid goes on running. More to try:
	  export CONTAINER_RUNTIME_ENDPOINT=unix://$SOCKET
	  ${BIN#"$PWD/"}/crictl exec -it ${container:0:13} sh
	  ${BIN#"$PWD/"}/crictl stats
	  tail -f ${LOG#"$PWD/"}
	make stop    ends crid; the pod goes on, and the next make run finds it
	make reset   removes the pod, the images, the network and all files

	All files are in ${RUN#"$PWD/"}/. Outside of it there are, until make reset:
	T
	[ "$STATE" = "$RUN/state" ] || say "  $STATE (sockets' paths are limited to 107 bytes; this source tree's is too long)"
	cat <<-T
	  /sys/fs/cgroup/*/$NAME or /sys/fs/cgroup/$NAME, the pods' cgroups (the kernel's)
	  the bridge $BRIDGE and the pods' veth ends (CNI)
	  iptables rules in chains CNI-*, table nat (CNI)
	  net.ipv4.ip_forward = 1, which stays (CNI)
	T
}

reset() {
	[ -f "$CONFIG" ] || { say "nothing to reset: there is no ${RUN#"$PWD/"}"; return; }
	stop
	"$BIN/crid" --config "$CONFIG" reset --yes --images
	ip link delete "$BRIDGE" 2>/dev/null || true
	# The parents that pods name are the kubelet's to remove, here ours.
	local d
	for d in "/sys/fs/cgroup/$NAME" /sys/fs/cgroup/*/"$NAME"; do
		[ ! -d "$d" ] || find "$d" -depth -type d -exec rmdir {} \;
	done
	if grep -qF -e " $RUN/" -e " $STATE/" /proc/self/mountinfo; then
		grep -F -e " $RUN/" -e " $STATE/" /proc/self/mountinfo | awk '{print "  " $5}' >&2
		die "these are still mounted, so no file is removed"
	fi
	rm -rf --one-file-system "$RUN" "$STATE"
	say "crid, its pods, images, network and files are gone"
}

case ${1:-} in
up) up ;;
stop) stop; say "crid has ended; pods go on. make run finds them again, make reset removes them" ;;
reset) reset ;;
*) sed -n '2,6p' "$0"; exit 2 ;;
esac
