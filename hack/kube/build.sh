#!/bin/bash
# hack/kube/build.sh [PROGRAM...]: builds Kubernetes' own programs from their Go modules into bin/kube. PROGRAM is one of
#
#   kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler etcd   (default: these)
#   agnhost nnp e2e_node.test ginkgo                                            what the node conformance suite needs
#
# Versions and checksums are those of hack/kube/modules/go.mod and go.sum. A program is built again only when these, the Go release
# or this way of building has changed: a stamp in bin/kube/.stamp tells. It runs at low priority, and takes minutes
# the first time.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=$PWD/bin/kube MODULES=$PWD/hack/kube/modules RECIPE=1
export GOFLAGS='-buildvcs=false -mod=readonly' GOWORK=off CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
unset GOOS GOARCH
die() { echo "kube: $*" >&2; exit 1; }

mkdir -p "$OUT/.stamp"
exec 9>"$OUT/.lock"
flock -w 3600 9 || die "another build goes on for more than an hour; see who holds $OUT/.lock"
cd "$MODULES"
VERSION=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
MINOR=${VERSION#v1.} MINOR=${MINOR%%.*}
PINS="$(cat go.mod go.sum | sha256sum | cut -c1-16) recipe $RECIPE $(go env GOVERSION)"
V=k8s.io/component-base/version
STAMPS="-s -w -X $V.gitVersion=$VERSION -X $V.gitMajor=1 -X $V.gitMinor=$MINOR -X $V.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=$VERSION"

package_of() {
	case $1 in
	kubelet | kubectl | kube-apiserver | kube-controller-manager | kube-scheduler) echo k8s.io/kubernetes/cmd/$1 ;;
	etcd) echo go.etcd.io/etcd/server/v3 ;;
	agnhost) echo k8s.io/kubernetes/test/images/agnhost ;;
	nnp) echo k8s.io/kubernetes/test/images/nonewprivs ;;
	e2e_node.test) echo k8s.io/kubernetes/test/e2e_node ;;
	ginkgo) echo github.com/onsi/ginkgo/v2/ginkgo ;;
	*) die "no such program: $1" ;;
	esac
}

[ $# -gt 0 ] || set -- kubelet kubectl kube-apiserver kube-controller-manager kube-scheduler etcd
for p; do
	package=$(package_of "$p")
	if [ -x "$OUT/$p" ] && [ "$(cat "$OUT/.stamp/$p" 2>/dev/null)" = "$PINS" ]; then continue; fi
	t0=$SECONDS
	echo "kube: building $p (Kubernetes $VERSION)"
	command=(go build)
	[[ $p != *.test ]] || command=(go test -c)
	nice -n 10 "${command[@]}" -trimpath -ldflags "$STAMPS" -o "$OUT/$p.new" "$package" || die "building $p failed"
	mv "$OUT/$p.new" "$OUT/$p"
	echo "$PINS" >"$OUT/.stamp/$p"
	echo "kube: $p took $((SECONDS - t0)) s"
done
