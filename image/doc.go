// Package image keeps the node's images: it pulls, imports, lists, removes and
// exports them, and prepares root file systems and image volumes from them.
//
// It owns the image records, which names (tags and digests) an image has, and
// the pipeline that turns a reference into layers. Unpacked layers and root
// file systems are image/layers', registries are image/registry's. It refuses
// to know CRI messages and containers.
//
// # On disk
//
// Below Root (…/images):
//
//	l/<n>, l/<n>.json   unpacked layers under short names, and their records
//	records/<hex>.json  one record per image, written last
//	durable.json        how far layers are on the disk
//	quarantine/         records that could not be read, kept for a human
//	ingest/, trash/     work under way; swept at start
//
// A pull unpacks all layers beside each other into ingest/, renames them into
// place and only then writes the image's record. Some seconds later the file
// system is synced, and durable.json says which layers that was good for: after
// a power failure the others are dropped, and the images that they are part of.
// Whatever moment a crash picks, an image is whole or absent.
//
// A removal takes the record away for good and moves the layers to trash/,
// which is emptied in the background, slowly while pulls go on. Only where
// space is short does it wait for that.
//
// # What is not kept
//
// Compressed layers are not kept: after unpacking nothing needs them, and they
// would take a third of the disk again. [Store.Export] therefore writes layers
// anew from the unpacked files, uncompressed, with a manifest and configuration
// that fit them; the exported image has the same content and names but other
// digests than the one in the registry.
package image
