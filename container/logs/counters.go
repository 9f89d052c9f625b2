package logs

import "sync/atomic"

// Counters count since the log was opened, or, from [Totals], since the process
// began.
type Counters struct {
	// Entries and Bytes were written; Parts are those entries that are not the
	// end of a line.
	Entries, Bytes, Parts uint64
	// DroppedEntries and DroppedBytes could not be written and are lost.
	DroppedEntries, DroppedBytes uint64
	// ClientsCut are attached clients that were too slow.
	ClientsCut uint64
}

type counters struct {
	entries, bytes, parts, droppedEntries, droppedBytes, clientsCut atomic.Uint64
}

func (c *counters) read() Counters {
	return Counters{
		Entries: c.entries.Load(), Bytes: c.bytes.Load(), Parts: c.parts.Load(),
		DroppedEntries: c.droppedEntries.Load(), DroppedBytes: c.droppedBytes.Load(),
		ClientsCut: c.clientsCut.Load(),
	}
}

var totals counters

// Totals are the counters of all logs of this process together.
func Totals() Counters { return totals.read() }

// Counters are those of this log.
func (l *Log) Counters() Counters { return l.counters.read() }

func (l *Log) wrote(entries, parts, bytes int) {
	for _, c := range []*counters{&l.counters, &totals} {
		c.entries.Add(uint64(entries))
		c.parts.Add(uint64(parts))
		c.bytes.Add(uint64(bytes))
	}
}

func (l *Log) dropped(entries, bytes int) {
	for _, c := range []*counters{&l.counters, &totals} {
		c.droppedEntries.Add(uint64(entries))
		c.droppedBytes.Add(uint64(bytes))
	}
}

func (l *Log) cut() {
	l.counters.clientsCut.Add(1)
	totals.clientsCut.Add(1)
}
