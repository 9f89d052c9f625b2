#!/bin/bash
# hack/vm/vm.sh: an emulated machine with cgroup v2 and nothing else, for hosts that have cgroup v1 or no KVM.
#
#   hack/vm/vm.sh build           make kernel and root image from Debian packages (about a minute; nothing where they are up to date)
#   hack/vm/vm.sh run 'COMMAND'   boot, run COMMAND as root with bash, pass its output and its exit status on, power off
#
#   INIT=tiny|systemd   what is PID 1 in there (default tiny, a few lines of shell)
#   SHARE=DIR           the folder that is /host in there, writable, and the working directory (default: this one)
#   LIMIT=SECONDS       a run that takes longer is ended, status 124 (default 600); 125: the guest died on its own
#   MEMORY=MIB          default 3072            KERNEL=1      show the kernel's messages
#
# Everything lies in .build/vm (or $CRID_BUILD_DIR/vm). A run changes nothing there: writes to the root are forgotten, /scratch is an
# empty ext4 disk. Several runs may go side by side. The guest has no network but what runs in it.
#
# One virtual processor, on purpose: qemu 7.2 that emulates two in two threads loses races when the guest's kernel patches its own code.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STORE=${CRID_BUILD_DIR:-$(cd "$HERE/../.." && pwd)/.build}/vm
ARCH=amd64

die() { echo "vm: $*" >&2; exit "${CODE:-1}"; }

# Packages of the guest besides Debian's smallest base: what crid, the CNI plugins, the systemd driver and AppArmor profiles need.
PACKAGES=(systemd systemd-sysv dbus kmod procps iproute2 iptables mount util-linux libseccomp2 apparmor crun e2fsprogs ca-certificates)

# Units that make the boot long and have nothing to do in a guest that lives for one command.
MASKED=(
	apparmor.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
	console-getty.service getty.target
	systemd-ask-password-console.path systemd-ask-password-wall.path systemd-binfmt.service systemd-boot-system-token.service
	systemd-firstboot.service systemd-hwdb-update.service systemd-initctl.socket systemd-journal-flush.service
	systemd-journald.service systemd-journald.socket systemd-journald-audit.socket systemd-journald-dev-log.socket
	systemd-logind.service systemd-machine-id-commit.service systemd-modules-load.service systemd-networkd.service systemd-pstore.service
	systemd-random-seed.service systemd-remount-fs.service systemd-resolved.service systemd-sysctl.service systemd-sysusers.service
	systemd-timesyncd.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-udevd.service
	systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service systemd-update-utmp.service
	systemd-user-sessions.service modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
	dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount
	sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
)

# stale FILE SOURCE...: FILE is missing, or older than one of the sources
stale() {
	local file=$1 source; shift
	[ -e "$file" ] || return 0
	for source; do [ "$source" -nt "$file" ] && return 0; done
	return 1
}

# newest_kernel: the name of Debian's newest kernel for virtual machines, of the 6.12 series where the suite has it (backported as a
# security update), since that is what current distributions have; else the suite's own
newest_kernel() {
	local name
	name=$(apt-cache --names-only search "^linux-image-6\\.12\\.[0-9]+\\+deb[0-9]+-cloud-$ARCH-unsigned\$" | cut -d' ' -f1 | sort -V | tail -n1)
	[ -n "$name" ] || name=$(apt-cache depends "linux-image-cloud-$ARCH" 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
	echo "$name"
}

# kernel: kernel/ is the package unpacked, vmlinux the bare ELF. Emulated, unpacking itself would take a compressed kernel seconds; qemu
# enters an ELF at its PVH entry, and modules are stored unpacked for the same reason.
kernel() {
	[ ! -f vmlinux ] || return 0
	local name packed
	name=$(newest_kernel)
	[ -n "$name" ] || { apt-get update -qq; name=$(newest_kernel); }
	[ -n "$name" ] || die "the package lists have no kernel for virtual machines"
	echo "vm: kernel $name"
	rm -rf kernel kernel.new
	mkdir kernel.new
	(cd kernel.new && apt-get download -qq "$name" 2>/dev/null && dpkg-deb -x ./*.deb . && rm -- *.deb) || die "cannot fetch $name"
	find kernel.new/lib/modules -name '*.ko.xz' -print0 | xargs -0 -r -n 50 -P 2 xz -d
	packed=$(echo kernel.new/boot/vmlinuz-*)
	python3 - "$packed" vmlinux.new <<'PYTHON' || die "cannot unpack $packed"
import subprocess, sys
image = open(sys.argv[1], "rb").read()
for magic, tool in ((b"(\xb5/\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b\x08", "gzip")):
    at = -1
    while (at := image.find(magic, at + 1)) >= 0:  # the magic may stand in code by chance: what unpacks to an ELF is it
        elf = subprocess.run([tool, "-dc"], input=image[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if elf.startswith(b"\x7fELF"):
            open(sys.argv[2], "wb").write(elf)
            sys.exit(0)
sys.exit(1)
PYTHON
	mv kernel.new kernel
	mv vmlinux.new vmlinux
	rm -f root.img
}

# suite: the release of Debian that this host is; its package lists are the guest's
suite() { (. /etc/os-release && echo "$VERSION_CODENAME"); }

# tree: root/ is Debian's base and PACKAGES
tree() {
	[ "$(cat packages 2>/dev/null)" != "${PACKAGES[*]}" ] || return 0
	local list sources=()
	for list in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
		[ ! -s "$list" ] || { sources=("$list"); break; }
	done
	echo "vm: root file system"
	rm -rf root root.img packages
	mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${PACKAGES[*]}")" --aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		"$(suite)" root "${sources[@]}" || die "mmdebstrap failed"
	echo "${PACKAGES[*]}" >packages
}

# image: root.img is root/ with the kernel's modules and our own files
image() {
	stale root.img "$HERE/vm.sh" "$HERE"/guest/* || return 0
	local release unit
	release=$(ls kernel/lib/modules)
	rm -rf root/usr/lib/modules root/vm
	mkdir -p root/usr/lib root/host root/scratch root/vm root/etc/systemd/system root/etc/systemd/system.conf.d
	cp -a kernel/lib/modules root/usr/lib/
	chroot root depmod "$release"
	install -m 755 "$HERE"/guest/*.sh root/vm/
	install -m 644 "$HERE"/guest/*.service "$HERE"/guest/*.target root/etc/systemd/system/
	install -m 644 "$HERE"/guest/manager.conf root/etc/systemd/system.conf.d/vm.conf
	for unit in "${MASKED[@]}"; do ln -sfn /dev/null "root/etc/systemd/system/$unit"; done
	echo guest >root/etc/hostname
	printf '127.0.0.1 localhost guest\n::1 localhost\n' >root/etc/hosts
	rm -f root/etc/resolv.conf # it may be a link
	echo 'nameserver 10.0.2.3' >root/etc/resolv.conf
	echo 4c1d000000000000000000000000c41d >root/etc/machine-id
	: >root/etc/fstab
	truncate -s 2G root.img.new
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d root root.img.new
	mv root.img.new root.img
}

build() {
	[ "$(uname -m)" = x86_64 ] && (. /etc/os-release && [ "$ID" = debian ]) || die "the guest is made on Debian for x86_64 from the host's own package lists"
	mkdir -p "$STORE"
	cd "$STORE"
	exec 9>lock
	flock -w 600 9 || die "another build holds $STORE/lock"
	kernel
	tree
	image
	exec 9>&-
	echo "vm: kernel $(ls kernel/lib/modules), image $(du -h root.img | cut -f1) in $STORE"
}

# words: the kernel's command line. An emulated processor needs no defence against its own speculation, and hashing less is faster.
words() {
	local mhz
	mhz=$(awk -F: '/^cpu MHz/ {print $2 * 1000; exit}' /proc/cpuinfo) # this machine type has no timer to measure it with
	echo "root=/dev/nvme0n1 rootfstype=ext4 rootwait rw init=$1 console=hvc0 panic=-1"
	[ -n "${KERNEL:-}" ] && echo "loglevel=7" || echo "quiet loglevel=3"
	echo "lsm=landlock,yama,apparmor,bpf apparmor=1 audit=0 swapaccount=1"
	echo "tsc_early_khz=${mhz%.*} tsc=reliable no_timer_check nowatchdog rcupdate.rcu_expedited=1"
	echo "mitigations=off nokaslr init_on_alloc=0 init_on_free=0 hardened_usercopy=off randomize_kstack_offset=off"
	echo "systemd.unit=vm.target systemd.show_status=0 systemd.log_level=warning systemd.log_target=console"
}

RUN='' CHILDREN=()
# leave ends what this run has started, and only that
leave() {
	local pid
	for pid in "${CHILDREN[@]}"; do kill "$pid" 2>/dev/null || :; done
	[ -z "$RUN" ] || rm -rf "$RUN"
}

run() {
	[ -n "${1:-}" ] || CODE=2 die "run what?"
	[ -f "$STORE/root.img" ] || CODE=2 die "there is no image yet: hack/vm/vm.sh build"
	local init share memory=${MEMORY:-3072} limit=${LIMIT:-600} code
	case ${INIT:-tiny} in
	tiny) init=/vm/init.sh ;;
	systemd) init=/lib/systemd/systemd ;;
	*) CODE=2 die "INIT is tiny or systemd" ;;
	esac
	share=$(readlink -f "${SHARE:-.}")
	RUN=$(mktemp -d "${TMPDIR:-/tmp}/crid-vm.XXXXXX")
	trap leave EXIT
	trap 'exit 130' INT TERM

	mkdir "$RUN/seed"
	printf '%s\n' "$1" >"$RUN/seed/command"
	truncate -s 8G "$RUN/scratch"
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=1,nodiscard -d "$RUN/seed" "$RUN/scratch"

	/usr/lib/qemu/virtiofsd --socket-path="$RUN/fs" --thread-pool-size=2 -o source="$share" -o cache=always -o sandbox=chroot >"$RUN/fs.log" 2>&1 &
	CHILDREN+=($!)
	for _ in {1..100}; do [ ! -S "$RUN/fs" ] || break; sleep 0.05; done

	local machine=(
		-M "microvm,pcie=on,acpi=on,rtc=on" -accel "tcg,thread=single,tb-size=1024" -cpu "max,erms=off,la57=off,smap=off,smep=off,pku=off" -smp 1
		-m "$memory" -object "memory-backend-memfd,id=ram,size=${memory}M,share=on" -numa "node,memdev=ram"
		-nodefaults -no-user-config -no-reboot -display none
		-kernel "$STORE/vmlinux" -append "$(words "$init" | tr '\n' ' ')"
		-drive "if=none,id=root,format=raw,snapshot=on,cache=unsafe,file=$STORE/root.img" -device "nvme,drive=root,serial=root"
		-drive "if=none,id=scratch,format=raw,cache=unsafe,file=$RUN/scratch" -device "virtio-blk-pci,drive=scratch"
		-chardev "socket,id=fs,path=$RUN/fs" -device "vhost-user-fs-pci,chardev=fs,tag=host"
		-device virtio-serial-pci -chardev "stdio,id=out,signal=off" -device "virtconsole,chardev=out,nr=0"
		-chardev "file,id=status,path=$RUN/status" -device "virtserialport,chardev=status,name=status,nr=1"
		-device virtio-rng-pci
	)
	# in the background, so that a signal to this script is seen at once
	TMPDIR=$RUN timeout -k 5 "$limit" qemu-system-x86_64 "${machine[@]}" </dev/null &
	CHILDREN+=($!)
	code=0
	wait $! || code=$?
	[ "$code" != 124 ] || CODE=124 die "ended after $limit seconds"
	[ -s "$RUN/status" ] || CODE=125 die "the guest ended without a word (qemu: $code; $(tail -n1 "$RUN/fs.log"))"
	exit "$(head -n1 "$RUN/status")"
}

case ${1:-} in
build) build ;;
run) shift; run "$*" ;;
*) awk 'NR > 1 && !/^#/ {exit} NR > 1 {sub(/^# ?/, ""); print}' "$0"; exit 2 ;;
esac
