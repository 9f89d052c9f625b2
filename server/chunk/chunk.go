package chunk

import (
	"google.golang.org/protobuf/proto"
)

// Limit is the most bytes of items in one message. gRPC clients refuse
// messages of more than 4 MiB unless told otherwise; half of that also keeps a
// message's buffers small. A single larger item is sent alone.
const Limit = 2 << 20

// perItem covers an item's own tag and length in the list that holds it.
const perItem = 6

// Send passes items to send in lists of at least one item and at most [Limit]
// bytes, in order. It stops at the first error of send and returns it. With no
// items nothing is sent.
func Send[T proto.Message](items []T, send func([]T) error) error {
	start, size := 0, 0
	for i, item := range items {
		n := proto.Size(item) + perItem
		if i > start && size+n > Limit {
			if err := send(items[start:i]); err != nil {
				return err
			}
			start, size = i, 0
		}
		size += n
	}
	if start == len(items) {
		return nil
	}
	return send(items[start:])
}
