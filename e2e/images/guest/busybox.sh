#!/bin/bash
# busybox.sh OUT WORKDIR: builds busybox from the source package of this system's own archive (Debian, Ubuntu), checked by apt's
# signatures, and puts the static binary at OUT.
#
# The packaged busybox-static will not do as a test image: its shell runs its own applets without looking for /bin/ls
# (so hiding /bin/ls hides nothing), and it has no pgrep and no ipcs. Same source here, but with upstream's default
# configuration less these two options, as in the busybox image that everyone pulls.
set -euo pipefail
OUT=${1:?out} W=${2:?work dir}
die() { echo "busybox.sh: $*" >&2; exit 1; }
mkdir -p "$W" "$(dirname "$OUT")"
W=$(cd "$W" && pwd) OUT=$(cd "$(dirname "$OUT")" && pwd)/$(basename "$OUT")

fetch() { # the source package, through an apt state of its own: nothing of the system's apt is changed
	command -v apt-get >/dev/null || die "no apt-get here: put busybox's source (busybox-*.tar.bz2) into $W"
	local a=$W/apt f
	rm -rf "$a"; mkdir -p "$a/lists/partial" "$a/cache/archives/partial" "$a/parts"
	for f in /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
		[ ! -f "$f" ] || sed 's/^Types:.*/Types: deb-src/' "$f" >"$a/parts/$(basename "$f")"
	done
	[ ! -f /etc/apt/sources.list ] || sed -n 's/^deb[[:space:]]/deb-src /p' /etc/apt/sources.list >"$a/parts/list.list"
	chmod -R a+rX "$a"
	local opts=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$a/parts" -o "Dir::State::Lists=$a/lists" -o "Dir::Cache=$a/cache" -o APT::Sandbox::User=root)
	apt-get "${opts[@]}" update || die "apt-get update for the source package failed"
	(cd "$W" && apt-get "${opts[@]}" source --download-only busybox >/dev/null) || die "apt-get source busybox failed"
	rm -rf "$a"
}

cd "$W"
ls busybox_*.orig.tar.bz2 >/dev/null 2>&1 || ls busybox-*.tar.bz2 >/dev/null 2>&1 || fetch
rm -rf src; mkdir src
for f in busybox_*.orig.tar.bz2 busybox-*.tar.bz2; do
	[ ! -f "$f" ] || { tar xjf "$f" -C src --strip-components=1; break; }
done
for f in busybox_*.debian.tar.xz; do
	[ ! -f "$f" ] || tar xJf "$f" -C src
done
cd src
if [ -f debian/patches/series ]; then
	while read -r p _; do
		case $p in "" | "#"*) ;; *) patch -s -p1 <"debian/patches/$p" ;; esac
	done <debian/patches/series
fi
# same input, same bytes
export KCONFIG_NOTIMESTAMP=1 SOURCE_DATE_EPOCH=1704067200 LC_ALL=C
make defconfig >make.log 2>&1 || die "no default configuration: $(tail -3 make.log)"
set_option() { sed -i "/^CONFIG_$1=/d; /^# CONFIG_$1 is not set/d" .config; echo "$2" >>.config; }
set_option STATIC CONFIG_STATIC=y
for o in FEATURE_PREFER_APPLETS FEATURE_SH_STANDALONE TC; do # tc does not compile with current kernel headers
	set_option $o "# CONFIG_$o is not set"
done
yes '' 2>/dev/null | make oldconfig >>make.log 2>&1 || true
make -j"$(nproc)" busybox >>make.log 2>&1 || { tail -20 make.log >&2; die "busybox did not build"; }
./busybox --list >applet.list
for a in sh ls ipcs pgrep pidof ping netstat brctl top id mount setsid; do
	grep -qx "$a" applet.list || die "busybox lacks $a"
done
cp busybox "$OUT.new"
mv "$OUT.new" "$OUT"
cd "$W"; rm -rf src
