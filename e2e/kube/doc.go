// Package kube tries crid with real Kubernetes: a kubelet with static pods (TestKubelet), a cluster of one node driven by kubectl while crid is
// killed and started again (TestCluster), and upgrades under load (TestDrill). They are no part of `make test`: `make test-kubelet`,
// `make test-cluster`, `make drill` build Kubernetes' programs first and run them.
package kube
