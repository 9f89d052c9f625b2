// Package hack holds what is checked of the source tree as a whole (the order of imports) and, in its folders and scripts, how the
// project is built, demonstrated and measured. Nothing here is part of crid.
package hack
