// Package config is crid's configuration: its keys, their defaults and
// meaning, reading the file and its drop-ins, and checking the result.
//
// It owns: which keys exist and what a valid value is. Every key has a default,
// so no file is needed; an unknown key is an error that names the nearest
// known one; every error names the key and says what to do.
//
// It refuses to know what the values are used for, and looks at nothing on the
// machine but the files it reads (and, where no handler is configured, whether
// known runtimes are installed).
package config
