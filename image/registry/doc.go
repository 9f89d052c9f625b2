// Package registry loads manifests and blobs from registries.
//
// It owns which hosts are asked, in which order and with which credentials:
// containerd's hosts.toml directories, through containerd's resolver, behind a
// transport that bounds redirects, retries and answers, and keeps secrets at
// the host they belong to. It refuses to know layers and disks.
package registry
