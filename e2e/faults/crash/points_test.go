//go:build e2e

package crash

// point is a step of a call, at which the daemon is hit.
type point struct {
	name string // of the failpoint in the code
	step string // what has just happened
	near string // where crid does it in another way: which of its steps stands for the one of that name
	mute string // why nothing can fail here; then there is no run E
}

const (
	afterSending = "the request is out and not answered yet"
	noError      = "nothing of it can fail"
)

// calls are all calls that change something, with their steps. The names and their order are those of the fault matrix; crid does some things
// in another order or not at all, which `near` tells.
var calls = []struct {
	rpc    string
	points []point
}{
	{"RunPodSandbox", []point{
		{name: "p1", step: "the name is reserved"},
		{name: "p2", step: "what will be in the world is on record"},
		{name: "p3", step: "the network namespace is made", near: "comes after p8"},
		{name: "p4", step: "CNI ADD is running: the first plugin has answered, the second is not begun"},
		{name: "p5", step: "ADD has returned, its result is not saved"},
		{name: "p6", step: "the result is saved"},
		{name: "p7", step: "the pod's files and its /dev/shm are there", near: "crid's sandbox process has no snapshot: its root is one folder for all pods"},
		{name: "p8", step: "the bundle is written"},
		{name: "p9", step: "the shim's start command is running"},
		{name: "p10", step: "the start command has answered, the answer is not saved"},
		{name: "p11", step: "it is saved"},
		{name: "p12", step: "Create of the sandbox process: " + afterSending},
		{name: "p13", step: "Create is answered"},
		{name: "p14", step: "Start of the sandbox process: " + afterSending},
		{name: "p15", step: "Start is answered"},
		{name: "p16", step: "READY is on record"},
		{name: "p17", step: "the event is sent"},
		{name: "p18", step: "the answer is sent"},
	}},
	{"CreateContainer", []point{
		{name: "c1", step: "the name is reserved"},
		{name: "c2", step: "the intent is on record"},
		{name: "c3", step: "the writable layer is prepared"},
		{name: "c4", step: "the image's volumes are made"},
		{name: "c5", step: "bundle and pipes are made"},
		{name: "c6", step: "the log is opened"},
		{name: "c7", step: "the record is written"},
		{name: "c8", step: "the event is sent", mute: noError},
		{name: "c9", step: "the answer is sent"},
	}},
	{"StartContainer", []point{
		{name: "s1", step: "the intent is on record"},
		{name: "s2", step: "the root file system is mounted", near: "crid mounts it in CreateContainer; here it has made sure of that"},
		{name: "s3", step: "Create: " + afterSending},
		{name: "s4", step: "Create is answered"},
		{name: "s5", step: "a pidfd is held and the first process on record"},
		{name: "s6", step: "Start: " + afterSending},
		{name: "s7", step: "Start is answered"},
		{name: "s8", step: "the law says Running, and the record is being written", mute: noError},
		{name: "s9", step: "the event is sent"},
		{name: "s10", step: "the answer is sent"},
	}},
	{"StopContainer", []point{
		{name: "t1", step: "the stop is asked for and no signal sent"},
		{name: "t2", step: "the stop signal is sent"},
		{name: "t3", step: "in the grace period", mute: noError},
		{name: "t4", step: "SIGKILL is sent"},
		{name: "t5", step: "the exit is seen", mute: noError},
		{name: "t6", step: "the counter of OOM kills is read", mute: noError},
		{name: "t7", step: "Delete: " + afterSending, near: "comes after t9 and t10: crid shows an exit before it cleans"},
		{name: "t8", step: "Delete is answered"},
		{name: "t9", step: "EXITED is on record"},
		{name: "t10", step: "the event is sent", mute: noError},
	}},
	{"RemoveContainer", []point{
		{name: "r1", step: "it is being removed"},
		{name: "r2", step: "the writable layer is removed"},
		{name: "r3", step: "the folders are removed"},
		{name: "r4", step: "the record is removed"},
		{name: "r5", step: "the name is free", mute: noError},
	}},
	{"StopPodSandbox", []point{
		{name: "n1", step: "the containers are stopped"},
		{name: "n2", step: "the sandbox process is killed"},
		{name: "n3", step: "CNI DEL is running: the last plugin has answered, the first is not begun"},
		{name: "n4", step: "DEL has returned"},
		{name: "n5", step: "the namespaces are unmounted"},
		{name: "n6", step: "the shim is shut down"},
		{name: "n7", step: "the record says so"},
	}},
	{"RemovePodSandbox", []point{
		{name: "m1", step: "it is being removed"},
		{name: "m2", step: "the folders are removed"},
		{name: "m3", step: "the record is removed"},
		{name: "m4", step: "the name is free", mute: noError},
	}},
	{"PullImage", []point{
		{name: "i1", step: "the name is resolved", near: "crid has no leases: what is under way belongs to nobody after a crash"},
		{name: "i2", step: "manifest and configuration are loaded", near: "crid keeps them in the image's record, i8"},
		{name: "i3", step: "in the middle of loading a layer"},
		{name: "i4", step: "a layer is whole, its digests right, and sealed", near: "comes before i7, the commit"},
		{name: "i5", step: "a folder for a layer is prepared"},
		{name: "i6", step: "in the middle of unpacking a layer", mute: noError},
		{name: "i7", step: "all layers are committed"},
		{name: "i8", step: "the image's record is written"},
		{name: "i9", step: "the answer is sent"},
	}},
	{"RemoveImage", []point{
		{name: "j1", step: "the record is removed"},
		{name: "j2", step: "a layer is forgotten and its files are there", mute: noError},
		{name: "j3", step: "the files are being deleted", near: "crid keeps no compressed blobs; its layers are deleted in the background", mute: noError},
	}},
	{"UpdateContainerResources", []point{
		{name: "u1", step: "the shim has answered Update"},
		{name: "u2", step: "the record says so"},
	}},
	{"ExecSync", []point{
		{name: "e1", step: "the shim knows the exec"},
		{name: "e2", step: "it is started"},
		{name: "e3", step: "it has written something", mute: noError},
		{name: "e4", step: "it has exited"},
		{name: "e5", step: "the shim has forgotten it", mute: noError},
	}},
}

// The four ways of being hit.
const (
	kill    = "K"   // SIGKILL, and a start at once
	killFor = "K60" // SIGKILL, the workload ends, and a start later than the shim keeps its end in mind
	fail    = "E"   // the step fails
	leave   = "C"   // the caller leaves, and tries again while the step is under way
)

var variants = []string{kill, killFor, fail, leave}
