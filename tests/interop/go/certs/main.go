// Command certs writes the certificates of a link as others make them: NAME.pem and NAME.key of ca, server, client.
//
//	reference  the reference's automatic mode: a CA for the servers; the client's certificate is signed by itself and
//	           stands for its own CA; key usage certSign in all; P-256, PKCS#8; no key identifiers in leaves
//	operator   an operator's own files, made once for an image: one CA for all, RSA, PKCS#1 keys
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"log"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

type identity struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func main() {
	folder := flag.String("folder", ".", "where the files go")
	name := flag.String("name", "podvm-server", "the server's name")
	style := flag.String("style", "reference", "reference or operator")
	flag.Parse()
	write := map[string]func(string, string){"reference": reference, "operator": operator}[*style]
	if write == nil {
		log.Fatalf("no style %s", *style)
	}
	write(*folder, *name)
}

func reference(folder, name string) {
	usage := x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	ca := template("agent-protocol-forwarder", "", usage, x509.ExtKeyUsageServerAuth)
	ca.IsCA = true
	signer := issue(folder, "ca", ca, curve(), nil)
	issue(folder, "server", template("agent-protocol-forwarder", name, usage, x509.ExtKeyUsageServerAuth), curve(), signer)
	issue(folder, "client", template("cloud-api-adaptor", "", usage, x509.ExtKeyUsageClientAuth), curve(), nil)
}

func operator(folder, name string) {
	ca := template("An operator", "Test CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	ca.IsCA, ca.DNSNames = true, nil
	signer := issue(folder, "ca", ca, modulus(), nil)
	usage := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	issue(folder, "server", template("An operator", name, usage, x509.ExtKeyUsageServerAuth), modulus(), signer)
	issue(folder, "client", template("An operator", "caa", usage, x509.ExtKeyUsageClientAuth), modulus(), signer)
}

func template(organisation, name string, usage x509.KeyUsage, roles ...x509.ExtKeyUsage) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	check(err)
	made := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organisation}, CommonName: name},
		NotBefore:             time.Now().Add(-5 * time.Minute),
		NotAfter:              time.Now().Add(2 * 365 * 24 * time.Hour),
		KeyUsage:              usage,
		ExtKeyUsage:           roles,
		BasicConstraintsValid: true,
	}
	if name != "" {
		made.DNSNames = []string{name}
	}
	return made
}

func curve() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	return key
}

func modulus() crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(err)
	return key
}

// issue signs a certificate, by itself when nobody else does, and writes it with its key.
func issue(folder, file string, made *x509.Certificate, key crypto.Signer, by *identity) *identity {
	if by == nil {
		by = &identity{made, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, made, by.certificate, key.Public(), by.key)
	check(err)
	path := filepath.Join(folder, file)
	check(os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	check(os.WriteFile(path+".key", pem.EncodeToMemory(block(key)), 0o600))
	certificate, err := x509.ParseCertificate(der)
	check(err)
	return &identity{certificate, key}
}

func block(key crypto.Signer) *pem.Block {
	if number, ok := key.(*rsa.PrivateKey); ok {
		return &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(number)}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
