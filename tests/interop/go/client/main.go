// Command client plays cases against an AgentService that answers as package script says; the way there may lead
// through any number of hops, or begin with TLS, as an adaptor's. It prints "ok CASE" for each and ends with 1 at the first that fails.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"github.com/containerd/ttrpc"

	"peerpods.test/interop/ends"
)

func main() {
	socket := flag.String("socket", "", "path of the server's unix socket")
	address := flag.String("dial", "", "address of a forwarder, for TLS instead")
	wanted := flag.String("case", "", "cases, with commas between")
	options := ends.Flags()
	flag.Parse()
	log.SetFlags(0)
	dial := func() (net.Conn, error) { return net.Dial("unix", *socket) }
	if *address != "" {
		dial = func() (net.Conn, error) { return options.Dial(*address) }
	}
	for _, one := range cases {
		if strings.Contains(","+*wanted+",", ","+one.name+",") {
			if err := played(dial, one.play); err != nil {
				log.Fatalf("case %s: %v", one.name, err)
			}
			fmt.Println("ok", one.name)
		}
	}
}

func played(dial dialler, play func(*session) error) error {
	session, err := open(dial)
	if err != nil {
		return err
	}
	defer session.client.Close()
	result := make(chan error, 1)
	go func() { result <- play(session) }()
	select {
	case err := <-result:
		return err
	case <-time.After(60 * time.Second):
		fmt.Fprintln(os.Stderr, "no end within 60 s")
		return os.ErrDeadlineExceeded
	}
}

type dialler func() (net.Conn, error)

// session is one connection, and the way to make more.
type session struct {
	client *ttrpc.Client
	dial   dialler
}

func open(dial dialler) (*session, error) {
	connection, err := dial()
	if err != nil {
		return nil, err
	}
	return &session{ttrpc.NewClient(connection), dial}, nil
}
