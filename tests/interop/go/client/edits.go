package main

import (
	"context"
	"encoding/base64"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"peerpods.test/interop/kata"
)

// podNamespace and bindSource: where the guest's hop puts containers, and a folder that it has to make.
const (
	podNamespace = "/run/netns/podns"
	bindSource   = "/run/interop/bind/source"
)

// edited is what the agent gets when a forwarder of ours is on the way.
func (s *session) edited() error {
	sandbox, container := sandboxRequest(), containerRequest()
	sandbox.Dns = nil
	spaces := &container.OCI.Linux.Namespaces
	*spaces = append(*spaces, &kata.LinuxNamespace{Type: "network", Path: podNamespace})
	return s.arrives(sandbox, container)
}

// untouched is what it gets otherwise.
func (s *session) untouched() error {
	return s.arrives(sandboxRequest(), containerRequest())
}

func (s *session) arrives(sandbox, container proto.Message) error {
	for _, one := range []struct {
		method       string
		sent, wanted proto.Message
	}{
		{"CreateSandbox", sandboxRequest(), sandbox},
		{"CreateContainer", containerRequest(), container},
	} {
		if err := s.agent(context.Background(), one.method, one.sent, &emptypb.Empty{}); err != nil {
			return err
		}
		data, err := s.diagnose(context.Background(), "received", one.method)
		if err != nil {
			return err
		}
		got := one.wanted.ProtoReflect().New().Interface()
		text, err := base64.StdEncoding.DecodeString(data)
		if err != nil || proto.Unmarshal(text, got) != nil || !proto.Equal(got, one.wanted) {
			return fmt.Errorf("%s arrived as %v", one.method, got)
		}
	}
	return nil
}

func sandboxRequest() *kata.CreateSandboxRequest {
	return &kata.CreateSandboxRequest{
		Hostname:  "web",
		Dns:       []string{"nameserver 192.0.2.53", "search example.org"},
		SandboxId: "interop",
		Storages:  []*kata.Storage{{Driver: "ephemeral", Source: "shm", MountPoint: "/run/kata-containers/sandbox/shm"}},
	}
}

func containerRequest() *kata.CreateContainerRequest {
	return &kata.CreateContainerRequest{
		ContainerId: "c",
		ExecId:      "c",
		OCI: &kata.Spec{
			Version: "1.1.0",
			Process: &kata.Process{Args: []string{"/bin/server", "-v"}, Env: []string{"LANG=C.UTF-8"}, Cwd: "/"},
			Mounts: []*kata.Mount{
				{Destination: "/proc", Source: "proc", Type: "proc"},
				{Destination: "/data", Source: bindSource, Type: "bind", Options: []string{"rbind", "rw"}},
			},
			Annotations: map[string]string{"io.kubernetes.cri.container-type": "container", "ключ": "✓"},
			Linux: &kata.Linux{Namespaces: []*kata.LinuxNamespace{
				{Type: "ipc", Path: ""},
				{Type: "mount", Path: ""},
			}},
		},
	}
}
