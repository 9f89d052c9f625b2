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
//	quarantine/         records that could not be read, kept for a human
//	ingest/, trash/     work under way; swept at start
//
// A pull unpacks all layers beside each other into ingest/, syncs the file
// system once, renames the layers into place and only then writes the image's
// record. Whatever moment a crash picks, an image is whole or absent.
//
// # What is not kept
//
// Compressed layers are not kept: after unpacking nothing needs them, and they
// would take a third of the disk again. [Store.Export] therefore writes layers
// anew from the unpacked files, uncompressed, with a manifest and configuration
// that fit them; the exported image has the same content and names but other
// digests than the one in the registry.
package image
