// Command server answers AgentService and Health on a unix socket as package script says, until its input ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"peerpods.test/interop/kata"
	"peerpods.test/interop/script"
)

func main() {
	socket := flag.String("socket", "", "path of the unix socket to listen on")
	flag.Parse()
	listener, err := net.Listen("unix", *socket)
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
	fmt.Println("ready")
	if err := server.Serve(context.Background(), listener); err != ttrpc.ErrServerClosed {
		log.Fatal(err)
	}
}

type unmarshal = func(interface{}) error

func agentMethods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"WriteStdin":        writeStdin,
		"ReadStdout":        readStdout,
		"GetDiagnosticData": diagnose,
		"SignalProcess":     fail,
		"WaitProcess":       wait,
	}
}

func check(_ context.Context, read unmarshal) (interface{}, error) {
	return &kata.HealthCheckResponse{Status: kata.HealthCheckResponse_SERVING}, read(&kata.CheckRequest{})
}

func writeStdin(_ context.Context, read unmarshal) (interface{}, error) {
	var request kata.WriteStreamRequest
	err := read(&request)
	return &kata.WriteStreamResponse{Len: crc32.ChecksumIEEE(request.Data)}, err
}

func readStdout(_ context.Context, read unmarshal) (interface{}, error) {
	var request kata.ReadStreamRequest
	err := read(&request)
	return &kata.ReadStreamResponse{Data: script.Pattern(int(request.Len))}, err
}

func diagnose(ctx context.Context, read unmarshal) (interface{}, error) {
	var request kata.GetDiagnosticDataRequest
	if err := read(&request); err != nil {
		return nil, err
	}
	if request.LogType == "metadata" {
		value, _ := ttrpc.GetMetadataValue(ctx, request.ContainerId)
		return &kata.GetDiagnosticDataResponse{Data: value}, nil
	}
	left := "none"
	if deadline, bounded := ctx.Deadline(); bounded {
		left = fmt.Sprint(time.Until(deadline).Milliseconds())
	}
	return &kata.GetDiagnosticDataResponse{Data: left}, nil
}

func fail(_ context.Context, read unmarshal) (interface{}, error) {
	var request kata.SignalProcessRequest
	if err := read(&request); err != nil {
		return nil, err
	}
	failure := status.New(codes.Code(request.Signal), request.ContainerId)
	for _, detail := range script.Details() {
		var err error
		if failure, err = failure.WithDetails(proto.MessageV1(detail)); err != nil {
			return nil, err
		}
	}
	return nil, failure.Err()
}

func wait(ctx context.Context, _ unmarshal) (interface{}, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
