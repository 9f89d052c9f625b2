#!/bin/bash
# The command of `vm.sh run`, under both inits: file systems, modules, a network that leads nowhere; then the command; then power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
modprobe -a -q overlay br_netfilter dummy virtio_blk
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-iptables=1
ip link set lo up
ip link add eth0 type dummy && ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2 # kubelets and probes want one
mount -t virtiofs host /host
mount -o noatime /dev/vda /scratch
mount -o remount,noatime /
ulimit -n 1048576

exec 3>"$(echo /dev/vport*p1)"
echo "guest: Linux $(uname -r), $(cat /proc/1/comm) is PID 1 after $(cut -d' ' -f1 /proc/uptime) s, cgroup controllers $(cat /sys/fs/cgroup/cgroup.controllers)"
cd /host || exit
bash /scratch/command </dev/null 3>&-
echo $? >&3
exec 3>&-
sync
echo o >/proc/sysrq-trigger
sleep 30
