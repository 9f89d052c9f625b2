// Package layers keeps unpacked layers as directories and builds root file
// systems from them.
//
// It owns the directories below images/l and images/ingest, their records, how
// they become whole after a crash (the file system is the index: what has a
// readable record and a directory exists, all else is swept), how many users
// each has, and the overlay mounts of containers. A layer that is the same
// whatever lies below it is kept once under its diff id, however many images
// place it anywhere; the few that are not are kept under their chain id.
//
// It refuses to know images, manifests and registries.
package layers
