package shimclient_test

import (
	"testing"

	"github.com/crid-project/crid/shimclient/conformance"
)

func TestRealShimConforms(t *testing.T) {
	conformance.Run(t, func(t *testing.T) conformance.World { return conformance.NewReal(t) })
}
