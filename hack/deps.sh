#!/bin/bash
# hack/deps.sh [run|test|vm]...: system packages that are missing, installed by name with apt-get where that is the system's
# way, and named otherwise. Prints what it does; does nothing, in no time, where nothing is missing.
#
#   run   (default) what building runc and running pods needs
#   test  and what the image kit and the tests need
#   vm    and what the cgroup v2 guest needs
set -euo pipefail
say() { echo "deps: $*"; }
die() { echo "deps: $*" >&2; exit 1; }

missing=()
# need PACKAGE TEST...: PACKAGE is missing unless TEST succeeds
need() { local p=$1; shift; "$@" >/dev/null 2>&1 || missing+=("$p"); }
cmd() { command -v "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

for set in "${@:-run}"; do
	case $set in
	run)
		need gcc cmd gcc
		need libc6-dev test -e /usr/include/stdio.h
		need libseccomp-dev test -e /usr/include/seccomp.h
		need pkg-config cmd pkg-config
		need make cmd make
		need git cmd git
		need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
		need iptables cmd iptables  # CNI's bridge (masquerade) and portmap plugins call it
		need iproute2 cmd ip
		need util-linux cmd setsid ;;
	test)
		need bzip2 cmd bzip2        # busybox's source is a tar.bz2, Debian's patches to it a tar.xz
		need xz-utils cmd xz
		need patch cmd patch
		need strace cmd strace      # fault tests slow a shim's system calls down with it
		need e2fsprogs cmd mkfs.ext4 # a disk in a file, whose power is taken away
		need procps cmd sysctl ;;
	vm)
		need qemu-system-x86 cmd qemu-system-x86_64
		need qemu-system-common test -x /usr/lib/qemu/virtiofsd
		need mmdebstrap cmd mmdebstrap
		need e2fsprogs cmd mke2fs
		need python3 cmd python3
		need zstd cmd zstd ;;
	*) die "no such set: $set" ;;
	esac
done

command -v go >/dev/null || die "Go is missing: install the release that go.mod names (https://go.dev/dl/)"
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
	die "missing, under the names that Debian gives them: ${missing[*]}. Install their like with this system's package tool (Fedora: gcc glibc-devel libseccomp-devel pkgconf iptables-nft iproute), then try again"
fi
[ "$(id -u)" = 0 ] || die "missing: ${missing[*]}. Run as root, or: sudo apt-get install --no-install-recommends ${missing[*]}"
say "installing with apt-get: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq || die "apt-get update failed"
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get could not install: ${missing[*]}"
say "installed: ${missing[*]}"
