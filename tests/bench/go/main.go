// Both hops as a typed proxy on the published ttrpc library: every call is decoded into its message, called again on
// the next hop, and its answer encoded again. It is the common way to build such a proxy, and what the benchmark
// compares against.
//
//	proxy worker PORT CERTIFICATES FOLDER PODS    dials PODS links to 127.0.0.1:PORT, then listens on FOLDER/<i>.sock
//	proxy guest  PORT CERTIFICATES AGENT_SOCKET   listens on 127.0.0.1:PORT
//
// CERTIFICATES is a folder with ca.pem, client.pem, client.key, server.pem, server.key; the server is "podvm".
// Prints READY when it listens.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"proxy/pb/agent"
)

// An edit changes a request before it goes on; it is called with the decoded message.
type edit func(request proto.Message)

func main() {
	log.SetFlags(0)
	if len(os.Args) == 6 && os.Args[1] == "worker" {
		pods, err := strconv.Atoi(os.Args[5])
		check(err)
		worker(os.Args[2], os.Args[3], os.Args[4], pods)
	} else if len(os.Args) == 5 && os.Args[1] == "guest" {
		guest(os.Args[2], os.Args[3], os.Args[4])
	} else {
		log.Fatal("usage: proxy worker PORT CERTIFICATES FOLDER PODS | proxy guest PORT CERTIFICATES AGENT_SOCKET")
	}
	fmt.Println("READY")
	select {}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func worker(port, certificates, folder string, pods int) {
	config := identity(certificates, "client")
	config.ServerName = "podvm"
	for pod := range pods {
		link, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
		check(err)
		check(link.Handshake())
		listener, err := net.Listen("unix", filepath.Join(folder, strconv.Itoa(pod)+".sock"))
		check(err)
		serve(listener, ttrpc.NewClient(link), func(proto.Message) {})
	}
}

func guest(port, certificates, agentSocket string) {
	config := identity(certificates, "server")
	config.ClientAuth = tls.RequireAndVerifyClientCert
	listener, err := tls.Listen("tcp", "127.0.0.1:"+port, config)
	check(err)
	connection, err := net.Dial("unix", agentSocket)
	check(err)
	serve(listener, ttrpc.NewClient(connection), addNamespace)
}

func identity(folder, name string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, name+".pem"), filepath.Join(folder, name+".key"))
	check(err)
	pem, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, MinVersion: tls.VersionTLS12}
}

func addNamespace(request proto.Message) {
	if create, ok := request.(*agent.CreateContainerRequest); ok && create.GetOCI().GetLinux() != nil {
		namespace := &agent.LinuxNamespace{Type: "network", Path: "/run/netns/podns"}
		create.OCI.Linux.Namespaces = append(create.OCI.Linux.Namespaces, namespace)
	}
}

// serve answers every method of both agent services on the listener by calling it on the next hop.
func serve(listener net.Listener, next *ttrpc.Client, change edit) {
	server, err := ttrpc.NewServer()
	check(err)
	for _, service := range []protoreflect.ServiceDescriptor{
		agent.File_caa_wire_proto_agent_proto.Services().ByName("AgentService"),
		agent.File_caa_wire_proto_health_proto.Services().ByName("Health"),
	} {
		methods := map[string]ttrpc.Method{}
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			methods[string(method.Name())] = forward(method, next, change)
		}
		server.Register(string(service.FullName()), methods)
	}
	go func() { check(server.Serve(context.Background(), listener)) }()
}

func forward(method protoreflect.MethodDescriptor, next *ttrpc.Client, change edit) ttrpc.Method {
	input, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	check(err)
	output, err := protoregistry.GlobalTypes.FindMessageByName(method.Output().FullName())
	check(err)
	service, name := string(method.Parent().FullName()), string(method.Name())
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		request, answer := input.New().Interface(), output.New().Interface()
		if err := unmarshal(request); err != nil {
			return nil, err
		}
		change(request)
		if err := next.Call(ctx, service, name, request, answer); err != nil {
			return nil, err
		}
		return answer, nil
	}
}
