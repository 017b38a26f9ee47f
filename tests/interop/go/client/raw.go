package main

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

// frame is a request on stream 3, made by hand.
func frame(request *ttrpc.Request) []byte {
	body, _ := proto.Marshal(request)
	header := make([]byte, 10, 10+len(body))
	binary.BigEndian.PutUint32(header, uint32(len(body)))
	binary.BigEndian.PutUint32(header[4:], 3)
	header[8] = 1
	return append(header, body...)
}

// answer reads one response.
func answer(connection net.Conn) (*ttrpc.Response, error) {
	header := make([]byte, 10)
	if _, err := io.ReadFull(connection, header); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(header))
	if _, err := io.ReadFull(connection, body); err != nil {
		return nil, err
	}
	response := &ttrpc.Response{}
	return response, proto.Unmarshal(body, response)
}
