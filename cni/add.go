package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/crid-project/crid/failpoint"
)

// ErrDelOwed is joined to the error of an Add that is not undone: its own clean-up
// failed, or its time was up before it could begin. The caller still owes a
// [Networks.Del] with the record that it has.
var ErrDelOwed = errors.New("the failed attachment could not be undone yet")

// Prepare freezes what an ADD for a will do: the network as configured now and
// the pod's arguments. The caller writes the answer to its own record before it
// calls [Networks.Add] with it; should it die in between, DEL works from it.
func (n *Networks) Prepare(a Attachment) (intent []byte, err error) {
	list, err := n.network()
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	if err := a.validate(); err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	return newRecord(list, n.cfg.IfName, a).marshal()
}

// Add attaches a pod as intent says ([Networks.Prepare]; nil: as configured
// now). A nil error means that every plugin of the network did its part and the
// interface has an address; Result.Saved belongs into the pod's record before
// anything else is done. On an error DEL has been called, with the same
// configuration; if that failed too, the error is also [ErrDelOwed]. So it is, and
// no DEL was called, if the time for ADD or the caller's is up: what made ADD hang
// (a lease's lock, an agent) is likely to do the same to DEL, and who asked for the
// pod need not wait for that as well. Not idempotent: a second Add of one pod is
// refused by most plugins.
func (n *Networks) Add(ctx context.Context, a Attachment, intent []byte) (_ *Result, err error) {
	if intent == nil {
		if intent, err = n.Prepare(a); err != nil {
			return nil, err
		}
	}
	r, list, err := parseRecord(intent)
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	if a.ID != "" && a.ID != r.ContainerID {
		return nil, fmt.Errorf("attach pod %s to network: the intent is of pod %s: %w", a.ID, r.ContainerID, errdefs.ErrInvalidArgument)
	}
	unlock, err := n.lock(ctx, r.ContainerID)
	if err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	defer unlock()
	if err := n.gate.begin(ctx, r.ContainerID); err != nil {
		return nil, fmt.Errorf("attach pod to network: %w", err)
	}
	defer n.gate.end()
	n.keep(r, intent)

	addCtx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	res, reached, err := n.add(addCtx, list, r)
	late := addCtx.Err() != nil
	cancel()
	if err == nil {
		r.Result = res
		var out *Result
		if out, err = n.resultOf(r); err == nil {
			n.keep(r, out.Saved)
			return out, nil
		}
	}
	err = fmt.Errorf("attach pod to network %q: %w", list.Name, err)
	if late {
		return nil, fmt.Errorf("%w; %w", err, ErrDelOwed)
	}
	delCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.cfg.Timeout)
	defer cancel()
	if undo := n.del(delCtx, list, r, reached); undo != nil {
		return nil, fmt.Errorf("%w; %w: %w", err, ErrDelOwed, undo)
	}
	n.forget(r)
	n.gate.released(r.ContainerID)
	return nil, err
}

// add runs the chain. reached is how many plugins were begun.
func (n *Networks) add(ctx context.Context, list *libcni.NetworkConfigList, r *record) (out json.RawMessage, reached int, err error) {
	var prev types.Result
	for i, p := range list.Plugins {
		conf, err := configure(list, p, prev, r.CapabilityArgs)
		if err != nil {
			return nil, i, err
		}
		if n.idle(p, r) && prev != nil {
			continue
		}
		answer, err := n.ask(ctx, p.Network.Type, "ADD", conf, r)
		if errors.Is(err, ErrPluginMissing) {
			return nil, i, err
		}
		if err != nil {
			return nil, i + 1, err
		}
		if prev, err = parseAnswer(list, answer); err != nil {
			return nil, i + 1, &PluginError{Plugin: p.Network.Type, Verb: "ADD", Msg: "gave an answer that is no CNI result", Details: err.Error()}
		}
		if err := failpoint.At("p4"); err != nil {
			return nil, i + 1, err
		}
	}
	out, err = json.Marshal(prev)
	if err != nil {
		return nil, len(list.Plugins), fmt.Errorf("encode network result: %w", err)
	}
	return out, len(list.Plugins), nil
}

// parseAnswer reads a plugin's result. One without a version is of the
// network's version (CNI issue 895).
func parseAnswer(list *libcni.NetworkConfigList, answer []byte) (types.Result, error) {
	if len(bytes.TrimSpace(answer)) == 0 {
		return nil, errors.New("it is empty")
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(answer, &fields); err != nil {
		return nil, fmt.Errorf("%w: %q", err, clip(string(answer[:min(len(answer), 128)])))
	}
	if fields == nil {
		return nil, errors.New("it is null")
	}
	var given string
	if raw, ok := fields["cniVersion"]; ok {
		if err := json.Unmarshal(raw, &given); err != nil {
			return nil, fmt.Errorf("cniVersion: %w", err)
		}
	}
	if given == "" {
		given = list.CNIVersion
		if given == "" {
			given = "0.1.0"
		}
		fields["cniVersion"], _ = json.Marshal(given)
		answer, _ = json.Marshal(fields)
	}
	return create.Create(given, answer)
}
