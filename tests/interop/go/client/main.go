// Command client plays cases against an AgentService that answers as package script says; the way there may lead
// through any number of hops. It prints "ok CASE" for each and ends with 1 at the first that fails.
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
)

func main() {
	socket := flag.String("socket", "", "path of the server's unix socket")
	wanted := flag.String("case", "all", "cases, with commas between, or all")
	flag.Parse()
	log.SetFlags(0)
	for _, one := range cases {
		if *wanted == "all" || strings.Contains(","+*wanted+",", ","+one.name+",") {
			if err := played(*socket, one.play); err != nil {
				log.Fatalf("case %s: %v", one.name, err)
			}
			fmt.Println("ok", one.name)
		}
	}
}

func played(socket string, play func(*session) error) error {
	connection, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(connection)
	defer client.Close()
	result := make(chan error, 1)
	go func() { result <- play(&session{client, socket}) }()
	select {
	case err := <-result:
		return err
	case <-time.After(60 * time.Second):
		fmt.Fprintln(os.Stderr, "no end within 60 s")
		return os.ErrDeadlineExceeded
	}
}

// session is one connection, and the path to make more.
type session struct {
	client *ttrpc.Client
	socket string
}
