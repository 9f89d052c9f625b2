package spec

import (
	"math/big"
	"regexp"
	"strconv"

	"github.com/crid-project/crid/container/spec/field"
)

// The annotations by which Kubernetes limits a pod's bandwidth, in bits per
// second, and the bounds that the kubelet sets on them.
const (
	annotationIngress = "kubernetes.io/ingress-bandwidth"
	annotationEgress  = "kubernetes.io/egress-bandwidth"
	minBandwidth      = 1_000
	maxBandwidth      = 1_000_000_000_000_000
)

func (b *builder) bandwidth() error {
	for key, to := range map[string]*uint64{annotationIngress: &b.plan.Ingress, annotationEgress: &b.plan.Egress} {
		s, ok := b.cfg.GetAnnotations()[key]
		if !ok {
			continue
		}
		v, ok := quantity(s)
		if !ok {
			return field.Invalid(field.Key("config.annotations", key), `must be a quantity such as "10M", got %q`, field.Short(s))
		}
		if v < minBandwidth || v > maxBandwidth {
			return field.Invalid(field.Key("config.annotations", key), "must be from 1k to 1P bits per second, got %q", field.Short(s))
		}
		if !b.plan.HostNetwork {
			*to = v
		}
	}
	return nil
}

var quantityShape = regexp.MustCompile(`^\+?([0-9]{1,30}\.?[0-9]{0,30}|\.[0-9]{1,30})(([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?[0-9]{1,2}))?$`)

// quantity reads a Kubernetes resource quantity ("10M", "1.5Gi", "1e6") and
// rounds it up to a whole number; false for what is none, negative or beyond
// 64 bits.
func quantity(s string) (uint64, bool) {
	m := quantityShape.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	v, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return 0, false
	}
	pow := func(base, exp int64) *big.Rat {
		abs := max(exp, -exp)
		p := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(abs), nil))
		if exp < 0 {
			p.Inv(p)
		}
		return p
	}
	decimal := map[string]int64{"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
	binary := map[string]int64{"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
	switch {
	case m[3] != "":
		v.Mul(v, pow(2, binary[m[3]]))
	case m[4] != "":
		v.Mul(v, pow(10, decimal[m[4]]))
	case m[5] != "":
		exp, err := strconv.ParseInt(m[5], 10, 16)
		if err != nil {
			return 0, false
		}
		v.Mul(v, pow(10, exp))
	}
	n, rest := new(big.Int).QuoRem(v.Num(), v.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return n.Uint64(), n.IsUint64()
}
