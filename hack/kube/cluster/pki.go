package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// PKI is a folder of certificates and keys: NAME.crt and NAME.key.
type PKI struct{ Dir string }

// Identity is whom a certificate is made out to. Organizations are groups to Kubernetes, Hosts names and addresses of a server.
type Identity struct {
	Name          string // common name
	Organizations []string
	Hosts         []string
}

const validity = 365 * 24 * time.Hour

// Cert is the path of a certificate, Key that of its key.
func (p PKI) Cert(name string) string { return filepath.Join(p.Dir, name+".crt") }
func (p PKI) Key(name string) string  { return filepath.Join(p.Dir, name+".key") }

func (p PKI) have(name string) bool {
	_, certErr := os.Stat(p.Cert(name))
	_, keyErr := os.Stat(p.Key(name))
	return certErr == nil && keyErr == nil
}

// Authority makes a certificate authority; one that is there stays.
func (p PKI) Authority(name string) error {
	if p.have(name) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := template(Identity{Name: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return p.write(name, der, key)
}

// Issue makes a certificate for a client and server, signed by an authority; one that is there stays.
func (p PKI) Issue(authority, name string, who Identity) error {
	if p.have(name) {
		return nil
	}
	ca, signer, err := p.load(authority)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := template(who)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("issue certificate %s: %w", name, err)
	}
	return p.write(name, der, key)
}

func template(who Identity) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // the kernel has no random numbers
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: who.Name, Organization: who.Organizations},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment}
	for _, h := range who.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return c
}

// ServiceAccountKeys makes sa.key and sa.pub, with which tokens are signed; they must be RSA.
func (p PKI) ServiceAccountKeys() error {
	if _, err := os.Stat(filepath.Join(p.Dir, "sa.pub")); err == nil {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(writePEM(p.Key("sa"), "PRIVATE KEY", private, 0o600), writePEM(filepath.Join(p.Dir, "sa.pub"), "PUBLIC KEY", public, 0o644))
}

// Kubeconfig writes NAME.kubeconfig for the owner of a certificate and gives its path.
func (p PKI) Kubeconfig(name, server, authority string) (string, error) {
	path := filepath.Join(p.Dir, name+".kubeconfig")
	type m = map[string]any
	data, err := json.MarshalIndent(m{"apiVersion": "v1", "kind": "Config", "current-context": "crid",
		"clusters": []m{{"name": "crid", "cluster": m{"server": server, "certificate-authority": p.Cert(authority)}}},
		"users":    []m{{"name": name, "user": m{"client-certificate": p.Cert(name), "client-key": p.Key(name)}}},
		"contexts": []m{{"name": "crid", "context": m{"cluster": "crid", "user": name}}}}, "", "  ")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o600)
}

func (p PKI) write(name string, der []byte, key crypto.PrivateKey) error {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(p.Key(name), "PRIVATE KEY", private, 0o600), writePEM(p.Cert(name), "CERTIFICATE", der, 0o644))
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func (p PKI) load(name string) (*x509.Certificate, crypto.Signer, error) {
	certDER, err := readPEM(p.Cert(name))
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", p.Cert(name), err)
	}
	keyDER, err := readPEM(p.Key(name))
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", p.Key(name), err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("read %s: this key does not sign", p.Key(name))
	}
	return cert, signer, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("read %s: no PEM", path)
	}
	return block.Bytes, nil
}
