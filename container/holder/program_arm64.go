package holder

import _ "embed"

//go:embed holder_arm64
var program []byte
