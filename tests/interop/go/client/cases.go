package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strconv"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"peerpods.test/interop/ends"
	"peerpods.test/interop/kata"
	"peerpods.test/interop/script"
)

var cases = []struct {
	name string
	play func(*session) error
}{
	{"check", (*session).check},
	{"sizes", (*session).sizes},
	{"flight", (*session).flight},
	{"errors", (*session).errors},
	{"unimplemented", (*session).unimplemented},
	{"metadata", (*session).metadata},
	{"deadline", (*session).deadline},
	{"midframe", (*session).midframe},
	{"pair", (*session).pair},
	{"ended", (*session).ended},
	{"edited", (*session).edited},
	{"untouched", (*session).untouched},
}

var allSizes = []int{0, 1, 1000, 4095, 4096, 65536, 1 << 20, 3 << 20}

func (s *session) agent(ctx context.Context, method string, request, response proto.Message) error {
	return s.client.Call(ctx, script.AgentService, method, request, response)
}

func (s *session) check() error {
	var response kata.HealthCheckResponse
	err := s.client.Call(context.Background(), script.Health, "Check", &kata.CheckRequest{}, &response)
	if err == nil && response.Status != kata.HealthCheckResponse_SERVING {
		err = fmt.Errorf("status %v", response.Status)
	}
	return err
}

func (s *session) sizes() error {
	for _, size := range allSizes {
		if err := s.writeAndRead(size); err != nil {
			return fmt.Errorf("%d bytes: %w", size, err)
		}
	}
	return nil
}

func (s *session) writeAndRead(size int) error {
	text := script.Pattern(size)
	var written kata.WriteStreamResponse
	if err := s.agent(context.Background(), "WriteStdin", &kata.WriteStreamRequest{Data: text}, &written); err != nil {
		return err
	}
	if written.Len != crc32.ChecksumIEEE(text) {
		return errors.New("something else arrived there")
	}
	var read kata.ReadStreamResponse
	if err := s.agent(context.Background(), "ReadStdout", &kata.ReadStreamRequest{Len: uint32(size)}, &read); err != nil {
		return err
	}
	if !bytes.Equal(read.Data, text) {
		return errors.New("something else arrived here")
	}
	return nil
}

func (s *session) flight() error {
	const callers, rounds = 32, 20
	results := make(chan error, callers)
	for caller := 0; caller < callers; caller++ {
		go func(caller int) {
			for round := 0; round < rounds; round++ {
				if err := s.writeAndRead(allSizes[(caller+round)%6]); err != nil {
					results <- err
					return
				}
			}
			results <- s.writeAndRead(1 << 20)
		}(caller)
	}
	for caller := 0; caller < callers; caller++ {
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

func (s *session) errors() error {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		message := fmt.Sprintf("%q ✗ %s", "policy: ", code)
		request := &kata.SignalProcessRequest{ContainerId: message, Signal: uint32(code)}
		failure, _ := status.FromError(s.agent(context.Background(), "SignalProcess", request, &emptypb.Empty{}))
		if failure.Code() != code || failure.Message() != message {
			return fmt.Errorf("%v came as %v %q", code, failure.Code(), failure.Message())
		}
		for n, wanted := range script.Details() {
			got := failure.Proto().GetDetails()
			if len(got) != 2 || !got[n].MessageIs(wanted) {
				return fmt.Errorf("%v came with the details %v", code, got)
			}
			detail, err := got[n].UnmarshalNew()
			if err != nil || !proto.Equal(detail, wanted) {
				return fmt.Errorf("%v: detail %v, %v", code, detail, err)
			}
		}
	}
	return s.check()
}

func (s *session) unimplemented() error {
	err := s.agent(context.Background(), "AddSwap", &kata.AddSwapRequest{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("a method without a handler: %v", err)
	}
	err = s.client.Call(context.Background(), "no.Service", "Method", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("an unknown service: %v", err)
	}
	return s.check()
}

func (s *session) diagnose(ctx context.Context, kind, key string) (string, error) {
	var response kata.GetDiagnosticDataResponse
	request := &kata.GetDiagnosticDataRequest{LogType: kind, ContainerId: key}
	err := s.agent(ctx, "GetDiagnosticData", request, &response)
	return response.Data, err
}

func (s *session) metadata() error {
	const key, value = "containerd-namespace-ttrpc", "k8s.io"
	ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{key: []string{value}, "other": []string{"x"}})
	got, err := s.diagnose(ctx, "metadata", key)
	if err == nil && got != value {
		err = fmt.Errorf("metadata arrived as %q", got)
	}
	return err
}

func (s *session) deadline() error {
	if left, err := s.diagnose(context.Background(), "deadline", ""); err != nil || left != "none" {
		return fmt.Errorf("without a deadline: %q, %v", left, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	left, err := s.diagnose(ctx, "deadline", "")
	if ms, _ := strconv.Atoi(left); err != nil || ms < 3000 || ms > 5000 {
		return fmt.Errorf("of 5 s there were %q ms left, %v", left, err)
	}
	if err := s.deadlineOfTheServer(); err != nil {
		return err
	}
	short, cancelShort := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancelShort()
	began := time.Now()
	err = s.agent(short, "WaitProcess", &kata.WaitProcessRequest{}, &kata.WaitProcessResponse{})
	if took := time.Since(began); err == nil || took < 150*time.Millisecond || took > 2*time.Second {
		return fmt.Errorf("a wait of 200 ms took %v: %v", took, err)
	}
	return s.check()
}

// deadlineOfTheServer sends a bounded call whose client does not watch the clock: the other side has to.
func (s *session) deadlineOfTheServer() error {
	connection, err := s.dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &ttrpc.Request{Service: script.AgentService, Method: "WaitProcess", TimeoutNano: int64(200 * time.Millisecond)}
	if _, err := connection.Write(frame(request)); err != nil {
		return err
	}
	_ = connection.SetReadDeadline(time.Now().Add(5 * time.Second))
	response, err := answer(connection)
	if err != nil {
		return err
	}
	if code := codes.Code(response.Status.GetCode()); code != codes.DeadlineExceeded {
		return fmt.Errorf("a bounded wait was answered with %v %q", code, response.Status.GetMessage())
	}
	return nil
}

// midframe dies in the middle of a request while another call of its connection waits; others go on.
func (s *session) midframe() error {
	for _, size := range []int{1, 9, 10, 11, 40, 100_000} {
		connection, err := s.dial()
		if err != nil {
			return err
		}
		waiting := frame(&ttrpc.Request{Service: script.AgentService, Method: "WaitProcess"})
		payload, _ := proto.Marshal(&kata.WriteStreamRequest{Data: script.Pattern(200_000)})
		torn := frame(&ttrpc.Request{Service: script.AgentService, Method: "WriteStdin", Payload: payload})[:size]
		binary.BigEndian.PutUint32(waiting[4:], 1)
		if _, err := connection.Write(append(waiting, torn...)); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
		end := ends.Abort
		if size%2 == 0 {
			end = net.Conn.Close
		}
		if err := end(connection); err != nil {
			return err
		}
		if err := s.writeAndRead(5000); err != nil {
			return fmt.Errorf("after %d bytes: %w", size, err)
		}
	}
	return nil
}

// ended waits for an answer that never comes, until the other side ends the connection: a call then fails, it does not hang.
func (s *session) ended() error {
	var response kata.WaitProcessResponse
	err := s.agent(context.Background(), "WaitProcess", &kata.WaitProcessRequest{}, &response)
	if !errors.Is(err, ttrpc.ErrClosed) {
		return fmt.Errorf("the end of the other side was told as %v", err)
	}
	return nil
}

// pair calls on two connections at once, as the shims do; the second goes on when the first has gone.
func (s *session) pair() error {
	first, err := open(s.dial)
	if err != nil {
		return err
	}
	defer first.client.Close()
	second, err := open(s.dial)
	if err != nil {
		return err
	}
	defer second.client.Close()
	results := make(chan error, 2)
	for _, one := range []*session{first, second} {
		go func(one *session) { results <- one.flight() }(one)
	}
	for range 2 {
		if err := <-results; err != nil {
			return err
		}
	}
	if err := first.client.Close(); err != nil {
		return err
	}
	return second.sizes()
}
