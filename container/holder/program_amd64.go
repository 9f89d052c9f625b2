package holder

import _ "embed"

//go:embed holder_amd64
var program []byte
