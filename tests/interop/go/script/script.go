// Package script is what client and server agree on: what an AgentService made for tests answers.
//
//	WriteStdin         the CRC-32 (IEEE) of the data as `len`
//	ReadStdout         `len` bytes of Pattern
//	GetDiagnosticData  log_type "metadata": the value of the metadata key `container_id`;
//	                   log_type "deadline": the milliseconds that are left, or "none";
//	                   log_type "received": the last request of the method `container_id`, in base 64
//	SignalProcess      fails with code `signal`, message `container_id` and two details (see Details)
//	WaitProcess        waits until its call is over
//	CreateSandbox      nothing, and so does CreateContainer; the request is kept
//	Health.Check       SERVING; every other method is UNIMPLEMENTED
package script

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"peerpods.test/interop/kata"
)

// AgentService and Health are the services' names on the wire.
const (
	AgentService = "grpc.AgentService"
	Health       = "grpc.Health"
)

// Pattern is a text of size bytes in which no two blocks of 16 are alike.
func Pattern(size int) []byte {
	text := make([]byte, 0, size+16)
	for n := 0; len(text) < size; n++ {
		text = append(text, fmt.Sprintf("%016x", n)...)
	}
	return text[:size]
}

// Details are what a failing SignalProcess attaches.
func Details() []proto.Message {
	return []proto.Message{&kata.CheckRequest{Service: "why"}, &kata.SetPolicyRequest{Policy: "deny"}}
}
