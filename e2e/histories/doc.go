// Package histories lets concurrent clients make, start, stop and remove the same few containers and pods while callers give up, shims are killed and the
// daemon is, records when each call began and ended and what was answered, and has Porcupine find out whether there is an order of single steps
// that explains every answer: whether the daemon is linearizable, object by object, and forgets nothing that it has said.
//
// The model (model.go) is small on purpose. What it holds to be impossible is what a kubelet cannot live with: a container that runs
// again after it was told to have ended, one that is gone after its creation was answered or there after its removal was, two of one name, an
// exit code that changes. A call without an answer may have happened at any time after it began, or never.
//
// It owns the clients, the recording and the model. It refuses to know how faults are made.
package histories
