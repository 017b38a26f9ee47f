// Package ends makes the two ends of a link as the reference's programs make them: TLS 1.2 or later, certificates on
// both sides, no ALPN, ttrpc right on top. Each connection says on standard output what was agreed on.
package ends

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// Options are the flags of an end; names of files, of versions ("1.2") and of cipher suites (IANA's).
type Options struct {
	ca, cert, key, name, min, max, suites string
}

// Flags asks the command line for them.
func Flags() *Options {
	o := &Options{}
	flag.StringVar(&o.ca, "ca", "", "PEM file of the CA that the other end is verified by")
	flag.StringVar(&o.cert, "cert", "", "PEM file of our certificate")
	flag.StringVar(&o.key, "key", "", "PEM file of its key")
	flag.StringVar(&o.name, "name", "", "name that the server's certificate has to bear")
	flag.StringVar(&o.min, "tls-min", "1.2", "lowest version of TLS")
	flag.StringVar(&o.max, "tls-max", "1.3", "highest version of TLS")
	flag.StringVar(&o.suites, "suites", "", "cipher suites of TLS 1.2, with commas between; empty for Go's own")
	return o
}

// Listen is the forwarder's end.
func (o *Options) Listen(address string) (net.Listener, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", address, config)
}

// Dial is the adaptor's end.
func (o *Options) Dial(address string) (net.Conn, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, config)
}

func (o *Options) config() (*tls.Config, error) {
	text, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", o.ca)
	}
	config := &tls.Config{
		RootCAs:          pool,
		ClientCAs:        pool,
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ServerName:       o.name,
		VerifyConnection: say,
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, o.profile(config)
}

func (o *Options) profile(config *tls.Config) error {
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	config.MinVersion, config.MaxVersion = versions[o.min], versions[o.max]
	if config.MinVersion == 0 || config.MaxVersion == 0 {
		return errors.New("versions are 1.2 and 1.3")
	}
	for _, suite := range tls.CipherSuites() {
		if strings.Contains(","+o.suites+",", ","+suite.Name+",") {
			config.CipherSuites = append(config.CipherSuites, suite.ID)
		}
	}
	if o.suites != "" && len(config.CipherSuites) != strings.Count(o.suites, ",")+1 {
		return fmt.Errorf("cipher suites %s: not all are known", o.suites)
	}
	return nil
}

func say(state tls.ConnectionState) error {
	version, suite := tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
	fmt.Printf("tls %s, %s, name %q, alpn %q\n", version, suite, state.ServerName, state.NegotiatedProtocol)
	return nil
}

// Abort ends a connection without a word: what is on its way may be lost, and TLS does not say goodbye.
func Abort(connection net.Conn) error {
	if secured, ok := connection.(*tls.Conn); ok {
		connection = secured.NetConn()
	}
	if tcp, ok := connection.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return connection.Close()
}
