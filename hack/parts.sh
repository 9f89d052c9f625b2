#!/bin/bash
# hack/parts.sh PART...: builds pinned programs from Go modules into bin/. PART is one of
#
#   runc             bin/runc                     with seccomp: needs gcc, pkg-config and libseccomp's headers (make deps)
#   shim             bin/containerd-shim-runc-v2
#   cni              bin/cni/*
#   crictl critest   bin/crictl, bin/critest
#   old-shim         bin/peer/containerd-shim-runc-v2-1.7   tests: shims of that age answer in another dialect
#   golangci-lint    bin/golangci-lint
#   containerd       bin/peer/containerd          only the benchmark and its like need it
#
# What is to be built stands in hack/parts.txt. A part is built again only when its line there, the Go release or this script's
# way of building has changed: a stamp in bin/.stamp tells.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=$PWD/bin PINS=$PWD/hack/parts.txt
SRC=${CRID_BUILD_DIR:-$PWD/.build}/modules
RECIPE=1 # raised when the commands below change what comes out
export GOFLAGS=-buildvcs=false GOWORK=off
export GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
unset GOOS GOARCH

die() { echo "parts: $*" >&2; exit 1; }

# pin NAME: sets MODULE VERSION SUM from hack/parts.txt
pin() {
	local name
	while read -r name MODULE VERSION SUM; do
		[ "$name" = "$1" ] && return 0
	done < <(grep -v '^#' "$PINS")
	die "$1 is not in hack/parts.txt"
}

# source NAME: sets DIR to a writable copy of the pinned module. There it is its own main module, so that its replace
# directives and its own go.sum hold, as they do for its makers; `go install module@version` would refuse the first.
source_of() {
	local json from sum tmp
	DIR=$SRC/$1@$VERSION
	[ -f "$DIR/.complete" ] && return 0
	tmp=$(mktemp -d)
	json=$(cd "$tmp" && go mod init parts >/dev/null 2>&1 && go mod download -json "$MODULE@$VERSION") || { rm -rf "$tmp"; die "cannot fetch $MODULE@$VERSION: ${json:-see above}"; }
	rm -rf "$tmp"
	from=$(sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p' <<<"$json")
	sum=$(sed -n 's/^\t"Sum": "\(.*\)",*$/\1/p' <<<"$json")
	[ -n "$from" ] || die "cannot fetch $MODULE@$VERSION: $json"
	if [ "$SUM" = - ]; then
		echo "parts: $MODULE $VERSION has no checksum in hack/parts.txt; what came has $sum" >&2
	elif [ "$SUM" != "$sum" ]; then
		die "checksum of $MODULE $VERSION is $sum, hack/parts.txt wants $SUM; the module is not what was pinned"
	fi
	rm -rf "$DIR"
	mkdir -p "$SRC"
	cp -r "$from" "$DIR"
	chmod -R u+w "$DIR"
	touch "$DIR/.complete"
}

# fresh PART MODULE-NAME: is what the stamp says still so? Else sets STAMP for done_with.
fresh() {
	pin "$2"
	STAMP="$1 $MODULE $VERSION $SUM recipe $RECIPE $GOVERSION"
	[ -f "$BIN/.stamp/$1" ] && [ "$(cat "$BIN/.stamp/$1")" = "$STAMP" ] || return 1
	local f
	for f in "${@:3}"; do [ -x "$BIN/$f" ] || return 1; done
}

done_with() { mkdir -p "$BIN/.stamp"; echo "$STAMP" >"$BIN/.stamp/$1"; }

# build OUT PACKAGE [go build arguments]: in DIR, in place only when complete
build() {
	local out=$BIN/$1 pkg=$2; shift 2
	mkdir -p "$(dirname "$out")"
	(cd "$DIR" && go build -trimpath -o "$out.new" "$@" "$pkg") || die "building $out failed"
	mv "$out.new" "$out"
}

part() {
	local t0=$SECONDS
	case $1 in
	runc)
		fresh runc runc runc && return
		command -v gcc >/dev/null && [ -e /usr/include/seccomp.h ] || die "runc needs gcc and libseccomp's headers: make deps"
		echo "parts: building runc $VERSION"; source_of runc
		CGO_ENABLED=1 build runc . -tags seccomp -ldflags "-s -w -X main.version=${VERSION#v}" ;;
	shim)
		fresh shim containerd containerd-shim-runc-v2 && return
		echo "parts: building containerd-shim-runc-v2 $VERSION"; source_of containerd
		CGO_ENABLED=0 build containerd-shim-runc-v2 ./cmd/containerd-shim-runc-v2 -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=${VERSION#v}" ;;
	containerd)
		fresh containerd containerd peer/containerd && return
		echo "parts: building containerd $VERSION, the peer of the benchmark"; source_of containerd
		CGO_ENABLED=0 build peer/containerd ./cmd/containerd -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=${VERSION#v}" ;;
	old-shim)
		fresh old-shim old-shim peer/containerd-shim-runc-v2-1.7 && return
		echo "parts: building containerd-shim-runc-v2 $VERSION"; source_of old-shim
		CGO_ENABLED=0 build peer/containerd-shim-runc-v2-1.7 ./cmd/containerd-shim-runc-v2 -ldflags "-s -w -X github.com/containerd/containerd/version.Version=${VERSION#v}" ;;
	cni)
		local p plugins="main/bridge main/loopback main/ptp main/host-device main/macvlan main/ipvlan ipam/host-local ipam/static meta/portmap meta/firewall meta/bandwidth meta/tuning"
		fresh cni cni cni/bridge cni/loopback cni/host-local cni/portmap && return
		echo "parts: building the CNI plugins $VERSION"; source_of cni
		for p in $plugins; do
			CGO_ENABLED=0 build "cni/${p#*/}" "./plugins/$p" -ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$VERSION"
		done ;;
	crictl)
		fresh crictl cri-tools crictl && return
		echo "parts: building crictl $VERSION"; source_of cri-tools
		CGO_ENABLED=0 build crictl ./cmd/crictl -ldflags "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$VERSION" ;;
	critest)
		fresh critest cri-tools critest && return
		echo "parts: building critest $VERSION"; source_of cri-tools
		(cd "$DIR" && CGO_ENABLED=0 go test -c -trimpath -o "$BIN/critest.new" -ldflags "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=$VERSION" ./cmd/critest) || die "building critest failed"
		mv "$BIN/critest.new" "$BIN/critest" ;;
	golangci-lint)
		fresh golangci-lint golangci-lint golangci-lint && return
		echo "parts: building golangci-lint $VERSION (some minutes)"; source_of golangci-lint
		CGO_ENABLED=0 build golangci-lint ./cmd/golangci-lint -ldflags "-s -w -X main.version=${VERSION#v}" ;;
	*) die "no such part: $1" ;;
	esac
	done_with "$1"
	echo "parts: $1 took $((SECONDS - t0)) s"
}

[ $# -gt 0 ] || { sed -n '2,14p' "$0"; exit 2; }
mkdir -p "$BIN"
GOVERSION=$(go env GOVERSION)
for p; do part "$p"; done
