// Package images answers CRI's ImageService.
//
// It owns the CRI meaning of its calls: filters, what a missing image answers,
// what is told of an image. It refuses to know registries and layers; those are
// package image's, behind [Store]. Credentials pass through and are never
// logged, kept or put into an error.
package images
