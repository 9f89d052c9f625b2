package server_test

import (
	"github.com/crid-project/crid/container"
	"github.com/crid-project/crid/image"
	"github.com/crid-project/crid/sandbox"
	"github.com/crid-project/crid/server"
	"github.com/crid-project/crid/server/containers"
	"github.com/crid-project/crid/server/events"
	"github.com/crid-project/crid/server/images"
	"github.com/crid-project/crid/server/pods"
	"github.com/crid-project/crid/server/seal"
	"github.com/crid-project/crid/store"
	"github.com/crid-project/crid/streaming"
)

// What the server declares that it needs is what the other parts have.
var (
	_ events.Ledger    = (*store.Ledger)(nil)
	_ pods.Hands       = (*sandbox.Pods)(nil)
	_ containers.Hands = (*container.Containers)(nil)
	_ images.Store     = (*image.Store)(nil)
	_ server.Specs     = (*seal.Specs)(nil)
	_ server.Streams   = (*streaming.Server)(nil)
)
