// Command server answers AgentService and Health as package script says, until its input ends: on a unix socket as an
// agent, or with TLS as a forwarder.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"

	"github.com/containerd/ttrpc"

	"peerpods.test/interop/ends"
	"peerpods.test/interop/script"
)

func main() {
	socket := flag.String("socket", "", "path of the unix socket to listen on")
	address := flag.String("listen", "", "address to listen on with TLS instead")
	options := ends.Flags()
	flag.Parse()
	listener, err := listen(*socket, *address, options)
	if err != nil {
		log.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	server.RegisterService(script.AgentService, &ttrpc.ServiceDesc{Methods: agentMethods()})
	server.RegisterService(script.Health, &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{"Check": check}})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Close()
	}()
	fmt.Println("ready", listener.Addr())
	if err := server.Serve(context.Background(), listener); err != ttrpc.ErrServerClosed {
		log.Fatal(err)
	}
}

func listen(socket, address string, options *ends.Options) (net.Listener, error) {
	if address != "" {
		return options.Listen(address)
	}
	return net.Listen("unix", socket)
}
