#!/bin/bash
# guest.sh build | run 'COMMAND': an emulated machine with cgroup v2; see README.md.
#   INIT=plain|systemd  MEM=3072 (MiB)  LIMIT=900 (s)  PACKAGES="more debian packages"  VERBOSE=1
set -euo pipefail
PROJECT=$(cd "$(dirname "$0")/../.." && pwd)
HERE=$PROJECT/hack/vm
DIR=${CRID_BUILD_DIR:-$PROJECT/.build}/vm
INIT=${INIT:-plain} MEM=${MEM:-3072} LIMIT=${LIMIT:-900}
WANTED="systemd systemd-sysv dbus iptables iproute2 kmod procps util-linux mount e2fsprogs libseccomp2 apparmor crun ca-certificates ${PACKAGES:-}"
say() { echo "guest: $*" >&2; }
die() { say "$*"; exit 1; }

# kernel: Debian's newest 6.12 for clouds, unpacked to an ELF file: qemu can start that directly, and the guest need not unpack it
kernel() {
	[ -f vmlinux ] && return
	local name deb
	apt-get update -qq
	name=$(apt-cache --names-only search '^linux-image-6\.[0-9.]*[+a-z0-9.-]*cloud-amd64-unsigned$' | awk '{print $1}' | sort -V | tail -1)
	[ -n "$name" ] || die "the package archive has no cloud kernel"
	say "kernel $name"
	rm -rf kernel ./*.deb
	apt-get download -qq "$name"
	deb=$(echo ./*.deb)
	dpkg-deb -x "$deb" kernel
	rm -f "$deb"
	find kernel -name '*.ko.xz' -exec xz -d {} +
	python3 "$HERE/unpack.py" kernel/boot/vmlinuz-* vmlinux
	rm -rf tree image
}

# tree: the root file system, as a folder
tree() {
	[ -f tree/.complete ] && return
	local suite
	suite=$(. /etc/os-release; echo "${VERSION_CODENAME:-bookworm}")
	[ -d /usr/share/keyrings ] && grep -qsi debian /etc/os-release || suite=bookworm
	say "root file system ($suite)"
	rm -rf tree
	# shellcheck disable=SC2086
	mmdebstrap --quiet --variant=minbase --include="$(echo $WANTED | tr ' ' ,)" --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" tree "$(sources)"
	touch tree/.complete
	rm -f image
}

# sources: this machine's own package sources, if they are Debian's
sources() {
	local f
	for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
		[ ! -s "$f" ] || { echo "$f"; return; }
	done
}

image() {
	[ -f image ] && [ image -nt "$HERE/guest.sh" ] && [ image -nt "$HERE/init.sh" ] && return
	local u
	rm -rf tree/usr/lib/modules
	cp -a kernel/lib/modules tree/usr/lib/
	u=$(ls kernel/lib/modules)
	chroot tree depmod "$u"
	mkdir -p tree/host tree/scratch
	install -m 755 "$HERE/init.sh" tree/guest-init
	echo guest >tree/etc/hostname
	: >tree/etc/fstab
	rm -f tree/etc/resolv.conf tree/etc/machine-id
	echo 'nameserver 10.0.2.3' >tree/etc/resolv.conf
	printf '127.0.0.1 localhost guest\n::1 localhost\n' >tree/etc/hosts
	echo 00000000000000000000000000000c1d >tree/etc/machine-id
	# systemd starts dbus and the command, and nothing else
	cat >tree/etc/systemd/system/guest.service <<-U
	[Unit]
	Requires=dbus.service
	After=dbus.service
	[Service]
	Type=exec
	ExecStart=/guest-init command
	StandardOutput=file:/dev/hvc0
	StandardError=inherit
	Delegate=yes
	KillMode=process
	LimitNOFILE=1048576
	TasksMax=infinity
	U
	cat >tree/etc/systemd/system/guest.target <<-U
	[Unit]
	Requires=guest.service dbus.socket
	AllowIsolate=yes
	U
	for u in systemd-udevd systemd-udev-trigger systemd-journald systemd-journal-flush systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-random-seed \
		systemd-update-utmp systemd-sysctl systemd-modules-load systemd-binfmt systemd-timesyncd systemd-networkd systemd-resolved systemd-remount-fs \
		systemd-logind systemd-user-sessions systemd-sysusers systemd-firstboot apparmor nftables kmod-static-nodes ldconfig; do
		ln -sf /dev/null "tree/etc/systemd/system/$u.service"
	done
	for u in systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-udevd-kernel.socket systemd-udevd-control.socket \
		getty.target apt-daily.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
		sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount; do
		ln -sf /dev/null "tree/etc/systemd/system/$u"
	done
	rm -f image.new
	truncate -s 2G image.new
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d tree image.new
	mv image.new image
}

build() {
	[ "$(uname -m)" = x86_64 ] || die "the guest is for x86_64 machines"
	mkdir -p "$DIR"
	cd "$DIR"
	kernel
	tree
	image
	say "ready: kernel $(ls kernel/lib/modules), $(du -sh --apparent-size image | cut -f1) image"
}

run() {
	[ -f "$DIR/image" ] && [ -f "$DIR/vmlinux" ] || die "nothing built yet: $0 build"
	local init khz virtiofsd=/usr/lib/qemu/virtiofsd started=$SECONDS rc quiet="quiet loglevel=3" f
	[ -x "$virtiofsd" ] || virtiofsd=/usr/libexec/virtiofsd
	case $INIT in plain) init=/guest-init ;; systemd) init=/lib/systemd/systemd ;; *) die "INIT=$INIT?" ;; esac
	[ -z "${VERBOSE:-}" ] || quiet="loglevel=7"
	W=$(mktemp -d) JOBS=()
	trap 'for j in "${JOBS[@]}"; do kill "$j" 2>/dev/null || true; done; rm -rf "$W"' EXIT
	trap 'exit 130' INT TERM
	mkdir "$W/seed"
	printf '%s\n' "$1" >"$W/seed/command"
	truncate -s 8G "$W/disk"
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1,nodiscard -d "$W/seed" "$W/disk"
	"$virtiofsd" --socket-path="$W/fs" -o source="$PROJECT" -o cache=always -o sandbox=chroot --thread-pool-size=2 >"$W/fs.log" 2>&1 &
	JOBS+=($!)
	for _ in $(seq 100); do [ -S "$W/fs" ] && break; sleep 0.05; done
	# told, since the guest's own calibration of the clock hangs now and then
	khz=$(awk -F: '/^cpu MHz/ {printf "%d", $2 * 1000; exit}' /proc/cpuinfo)
	set +e
	# One processor: with several, emulated in parallel, the guest's kernel is not stable.
	timeout -k 5 "$LIMIT" qemu-system-x86_64 -M microvm,pcie=on,acpi=on,rtc=on -accel tcg,thread=single,tb-size=1024 \
		-cpu max,erms=off,la57=off,smap=off,smep=off,pku=off -smp 1 -m "$MEM" \
		-object "memory-backend-memfd,id=mem,size=${MEM}M,share=on" -numa node,memdev=mem -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$DIR/vmlinux" -append "root=/dev/nvme0n1 rw rootfstype=ext4 rootwait init=$init console=hvc0 $quiet panic=-1 tsc_early_khz=$khz tsc=reliable no_timer_check nowatchdog mitigations=off nokaslr audit=0 lsm=landlock,yama,apparmor,bpf apparmor=1 rcupdate.rcu_expedited=1 systemd.unit=guest.target systemd.show_status=0 systemd.log_level=warning systemd.log_target=console" \
		-drive if=none,id=root,file="$DIR/image",format=raw,snapshot=on,cache=unsafe -device nvme,drive=root,serial=root \
		-drive if=none,id=scratch,file="$W/disk",format=raw,cache=unsafe -device virtio-blk-pci,drive=scratch \
		-chardev socket,id=fs,path="$W/fs" -device vhost-user-fs-pci,chardev=fs,tag=host \
		-device virtio-serial-pci -chardev stdio,id=con,signal=off -device virtconsole,chardev=con,nr=0 \
		-chardev file,id=status,path="$W/status" -device virtserialport,chardev=status,name=status,nr=1 -device virtio-rng-pci </dev/null &
	JOBS+=($!)
	wait $!
	rc=$?
	set -e
	say "$INIT: $((SECONDS - started)) s"
	[ $rc != 124 ] || { say "over the limit of $LIMIT s"; exit 124; }
	[ -s "$W/status" ] || { say "the guest died (qemu: $rc)"; tail -3 "$W/fs.log" >&2; exit 125; }
	exit "$(head -1 "$W/status")"
}

case ${1:-} in
build) build ;;
run) run "${2:?run what?}" ;;
*) sed -n '2,3p' "$0"; exit 2 ;;
esac
