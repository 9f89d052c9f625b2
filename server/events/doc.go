// Package events streams CRI container events (the kubelet's evented PLEG).
//
// A stream begins with a snapshot, one event for every pod and container as it
// is, and goes on with what happens: whoever connects, or connects again, has
// missed nothing. Every event carries the status of the pod and of all its
// containers. Pods are announced too, with their id as the container's, because
// a kubelet forgets a pod only on the deletion of its sandbox.
//
// It owns the order (subscribe, snapshot, follow) and the cutting off of slow
// consumers: queues are bounded, nobody waits for a consumer, and one that lags
// behind gets ResourceExhausted and connects anew. It refuses to know why
// something happened.
package events
