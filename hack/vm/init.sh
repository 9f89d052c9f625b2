#!/bin/bash
# The guest's side. As process 1 it mounts what a machine has, then runs the command as its child and reaps. As "init.sh command" (by itself, or by
# systemd) it brings up the rest, runs /scratch/command, hands its status to the host and powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

machine() {
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mountpoint -q /dev || mount -t devtmpfs dev /dev
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t mqueue mq /dev/mqueue
	mount -t tmpfs -o mode=755 run /run
	mount -t tmpfs -o mode=1777 tmp /tmp
	mount -t securityfs sec /sys/kernel/security
	mount -t bpf bpf /sys/fs/bpf 2>/dev/null
	mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
	local c
	for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control; done
	mount --make-rshared /
	ln -sf /proc/self/fd /dev/fd
	hostname guest
	"$0" command </dev/null &
	while :; do wait; sleep 1; done
}

command() {
	ulimit -n 1048576
	modprobe -a -q overlay br_netfilter dummy virtio_blk virtiofs 2>/dev/null
	sysctl -q -w net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 2>/dev/null
	ip link set lo up
	ip link add eth0 type dummy && ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2 dev eth0
	mkdir -p /host /scratch
	mount -t virtiofs host /host
	mount -o noatime /dev/vda /scratch
	mount --bind /scratch /var/tmp # where tests keep images and writable layers
	local status port
	port=$(ls /dev/vport*p1 | head -1)
	echo "guest: Linux $(uname -r), process 1 is $(cat /proc/1/comm), cgroup v2: $(cat /sys/fs/cgroup/cgroup.controllers)"
	cd /host || exit 1
	bash /scratch/command </dev/null
	status=$?
	echo $status >"$port"
	sync
	echo o >/proc/sysrq-trigger
	sleep 20
}

if [ "${1:-}" = command ]; then command; else machine; fi
