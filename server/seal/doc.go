// Package seal hands the two big configuration messages of CRI over to the spec
// packages, and gives back what the ledger keeps and what the hands act on.
//
// It owns nothing but the choice of the handler's options. It refuses to look
// inside a configuration.
package seal
