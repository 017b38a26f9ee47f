"""Classes from the private pool: services, wire numbers, unknown fields, enums."""

import pytest
from google.protobuf import descriptor_pool

from caa.wire.proto import agent, health, hypervisor, podvminfo, relay, ttrpc
from caa.wire.proto.descriptors import methods


@pytest.mark.parametrize(
    ("service", "count"),
    [
        ("grpc.AgentService", 42),
        ("grpc.Health", 2),
        ("hypervisor.Hypervisor", 4),
        ("podvminfo.PodVMInfo", 1),
        ("api.SecureMountService", 1),
        ("caa.relay.v1.AgentLinks", 3),
    ],
)
def test_services_are_complete(service: str, count: int) -> None:
    assert len(methods(service)) == count


def test_a_service_that_nobody_knows() -> None:
    with pytest.raises(KeyError):
        methods("grpc.Nothing")


def test_classes_are_the_modules_own() -> None:
    create = methods("hypervisor.Hypervisor")["CreateVM"]
    assert create.request is hypervisor.CreateVMRequest
    assert create.response is hypervisor.CreateVMResponse
    assert methods("grpc.AgentService")["StartContainer"].response is ttrpc.Empty
    assert methods("grpc.AgentService")["UpdateInterface"].response is agent.Interface


def test_wire_numbers() -> None:
    request = hypervisor.CreateVMRequest(id="a", networkNamespacePath="b")
    assert request.SerializeToString() == b"\x0a\x01a\x1a\x01b"
    assert podvminfo.GetInfoRequest(Wait=True).SerializeToString() == b"\x18\x01"
    assert agent.ReseedRandomDevRequest(data=b"x").SerializeToString() == b"\x12\x01x"
    assert relay.OpenRequest(disable_tls=True).SerializeToString() == b"\x58\x01"


def test_unknown_fields_are_kept() -> None:
    raw = b"\x0a\x01a" + b"\xfa\x3f\x03new"  # field 1, then field 1023 which no source knows
    assert hypervisor.StopVMRequest.FromString(raw).SerializeToString() == raw


def test_optional_fields_tell_absent_from_zero() -> None:
    config = agent.MemAgentMemcgConfig(swap=False)
    assert config.HasField("swap")
    assert not config.HasField("disabled")
    assert agent.LinuxSyscall(errnoret=0).WhichOneof("ErrnoRet") == "errnoret"


def test_enums() -> None:
    assert agent.v6 == agent.IPFamily.Value("v6") == 1
    assert health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING).status == 1


def test_the_default_pool_knows_nothing_of_ours() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("grpc.CreateContainerRequest")
