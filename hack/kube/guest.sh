#!/bin/bash
# hack/kube/guest.sh: what `make test-kubelet-v2` runs. A kubelet on crid in a guest with cgroup v2 and systemd (hack/vm), where crid is installed as
# the shipped service. The test is built here and only runs there. The guest is emulated: it takes
# some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
BUILD=${CRID_BUILD_DIR:-$PWD/.build} LIMIT=${LIMIT:-2400}
STAGE=$BUILD/vm/kubelet
hack/vm/vm.sh build
rm -rf "$STAGE"
mkdir -p "$STAGE"/{bin/kube,hack,contrib,e2e/images,.build/images}
cp -a bin/{crid,runc,containerd-shim-runc-v2,cni} "$STAGE/bin/"
cp -L bin/kube/kubelet "$STAGE/bin/kube/"
cp -a contrib/crid.service "$STAGE/contrib/"
cp -a hack/parts.txt "$STAGE/hack/"
cp -a e2e/images/guest "$STAGE/e2e/images/"
cp -a "$BUILD"/images/*.stamp "$STAGE/.build/images/"
for f in "$BUILD"/images/*.stamp; do cp -a "${f%.stamp}" "$STAGE/.build/images/"; done
go test -c -tags kube -o "$STAGE/guest.test" ./e2e/kube/guest
# A kubelet wants a default route; the guest has no network but this device.
INIT=systemd SHARE=$STAGE LIMIT=$LIMIT hack/vm/vm.sh run '
	export PATH=$PWD/bin:$PATH CRID_PROJECT=$PWD CRID_BUILD_DIR=$PWD/.build CRID_E2E_GUEST=1 TMPDIR=/scratch/tmp
	mkdir -p /scratch/tmp /scratch/crid /scratch/var /var/lib/crid
	mount --bind /scratch/var /var/tmp; mount --bind /scratch/crid /var/lib/crid
	ip link add node type dummy; ip addr add 10.77.0.1/24 dev node; ip link set node up; ip route replace default via 10.77.0.254
	cd /scratch && exec "$OLDPWD/guest.test" -test.v -test.timeout 35m
	' | tee "$STAGE/log"
grep -q '^--- PASS: TestKubeletUnderSystemd' "$STAGE/log"
