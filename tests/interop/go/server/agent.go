package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	protov1 "github.com/golang/protobuf/proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"peerpods.test/interop/kata"
	"peerpods.test/interop/script"
)

type unmarshal = func(interface{}) error

// received has the last request of a method, as bytes.
var received sync.Map

func agentMethods() map[string]ttrpc.Method {
	return map[string]ttrpc.Method{
		"WriteStdin":        writeStdin,
		"ReadStdout":        readStdout,
		"GetDiagnosticData": diagnose,
		"SignalProcess":     fail,
		"WaitProcess":       wait,
		"CreateSandbox":     keep("CreateSandbox", func() proto.Message { return &kata.CreateSandboxRequest{} }),
		"CreateContainer":   keep("CreateContainer", func() proto.Message { return &kata.CreateContainerRequest{} }),
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
	if request.LogType == "received" {
		kept, _ := received.Load(request.ContainerId)
		text, _ := kept.([]byte)
		return &kata.GetDiagnosticDataResponse{Data: base64.StdEncoding.EncodeToString(text)}, nil
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
		if failure, err = failure.WithDetails(protov1.MessageV1(detail)); err != nil {
			return nil, err
		}
	}
	return nil, failure.Err()
}

func wait(ctx context.Context, _ unmarshal) (interface{}, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// keep notes the request and succeeds.
func keep(name string, empty func() proto.Message) ttrpc.Method {
	return func(_ context.Context, read unmarshal) (interface{}, error) {
		request := empty()
		if err := read(request); err != nil {
			return nil, err
		}
		text, err := proto.Marshal(request)
		received.Store(name, text)
		return &emptypb.Empty{}, err
	}
}
