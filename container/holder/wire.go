package holder

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// One packet each way, in the machine's byte order, as in src/holder.c. The
// first four words of a request, the first five of an answer, and the
// operations hello and end mean the same in every version; all else goes by the
// version, which is in the socket's name as well.
const (
	magic   = 0x63726468
	version = 1
	idLen   = 64
	page    = 32

	requestLen = 24 + idLen
	answerHead = 40
	answerMax  = answerHead + page*idLen

	// maxPipes is how many pipes one id may have.
	maxPipes = 4
)

type op uint32

const (
	opHello op = iota
	opEnd
	opHold
	opDrop
	opList
)

type request struct {
	op   op
	seq  uint32
	from uint32 // opList: where to go on
	id   string
}

type answer struct {
	version, seq    uint32
	err             refusal
	pid, ids, pipes uint32
	next            uint32   // opList: where to go on; 0 at the end
	list            []string // opList
}

// refusal is an error that the holder answered, which therefore works.
type refusal unix.Errno

func (r refusal) Error() string { return "the holder refused: " + unix.Errno(r).Error() }

var order = binary.NativeEndian

func (q request) encode() []byte {
	b := make([]byte, requestLen)
	for i, w := range []uint32{magic, version, uint32(q.op), q.seq, q.from} {
		order.PutUint32(b[4*i:], w)
	}
	copy(b[24:], q.id)
	return b
}

var errForeign = errors.New("no holder answers there")

func decode(b []byte) (answer, error) {
	if len(b) < answerHead || order.Uint32(b) != magic {
		return answer{}, errForeign
	}
	w := func(i int) uint32 { return order.Uint32(b[4*i:]) }
	a := answer{version: w(1), seq: w(2), err: refusal(w(3)), pid: w(4)}
	if a.version != version {
		return a, nil // the rest may mean something else
	}
	a.ids, a.pipes, a.next = w(5), w(6), w(7)
	n := w(8)
	if n > page || len(b) < answerHead+int(n)*idLen {
		return answer{}, fmt.Errorf("%w: %d ids in %d bytes", errForeign, n, len(b))
	}
	for i := range int(n) {
		id := b[answerHead+i*idLen:][:idLen]
		end := idLen
		for end > 0 && id[end-1] == 0 {
			end--
		}
		a.list = append(a.list, string(id[:end]))
	}
	return a, nil
}
