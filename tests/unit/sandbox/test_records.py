"""A record written is the record read, whatever it holds; what is not a record is refused."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import StateError
from caa.model.ids import InstanceId, SandboxId
from caa.model.instance import Sizing
from caa.model.network import Neighbour, PodNetwork, Route, Tunnel
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.sandbox.records import decode, encode

FULL = Sandbox(
    id=SandboxId("x"),
    pod=PodSpec(
        pod_name="p",
        pod_namespace="n",
        netns="/run/netns/x",
        sizing=Sizing(instance_type="t", vcpus=2, memory_mib=512, gpus=1, gpu_model="m"),
        image="img",
        initdata='algorithm = "sha256"\n"ü"',
    ),
    phase=Phase.RUNNING,
    instance_name="podvm-p-x",
    token="00",
    boot_id="b",
    created_at=1.5,
    reached="link",
    instance=InstanceId("i-1"),
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    network=PodNetwork(
        interface="eth0",
        hwaddr="0a:00:00:00:00:01",
        mtu=1500,
        addresses=(ip_interface("10.0.0.2/24"), ip_interface("fd00::2/64")),
        routes=(Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("169.254.1.1"), onlink=True),),
        neighbours=(Neighbour(address=ip_address("169.254.1.1"), lladdr="ee:ee:ee:ee:ee:ee"),),
    ),
    tunnel=Tunnel(kind="vxlan", index=3, vni=555003, port=4789, worker=ip_interface("192.0.2.9/24"), mtu=1450),
)


def test_a_full_record_comes_back() -> None:
    again = decode(encode(FULL))
    assert again == FULL
    assert isinstance(again.addresses[0], IPv4Address)
    assert again.network is not None
    assert [type(one) for one in again.network.addresses] == [IPv4Interface, IPv6Interface]
    assert type(again.phase) is Phase


NUMBERS = st.integers(0, 2**31)
ADDRESSES = st.ip_addresses()
INTERFACES = ADDRESSES.map(ip_interface)
RECORDS = st.builds(
    Sandbox,
    id=st.text(min_size=1).map(SandboxId),
    pod=st.builds(
        PodSpec,
        pod_name=st.text(),
        pod_namespace=st.text(),
        netns=st.text(),
        sizing=st.builds(Sizing, vcpus=NUMBERS, memory_mib=NUMBERS),
        initdata=st.text(),
    ),
    phase=st.sampled_from(Phase),
    instance_name=st.text(),
    token=st.text(),
    boot_id=st.text(),
    created_at=st.floats(0, 2**40),
    instance=st.none() | st.text().map(InstanceId),
    addresses=st.lists(ADDRESSES).map(tuple),
    network=st.none()
    | st.builds(
        PodNetwork, interface=st.text(), hwaddr=st.text(), mtu=NUMBERS, addresses=st.lists(INTERFACES).map(tuple)
    ),
    tunnel=st.none()
    | st.builds(Tunnel, kind=st.text(), index=NUMBERS, vni=NUMBERS, port=NUMBERS, worker=INTERFACES, mtu=NUMBERS),
)


@given(RECORDS)
def test_any_record_comes_back(record: Sandbox) -> None:
    assert decode(encode(record)) == record


def test_a_field_that_an_older_program_did_not_write_has_its_default() -> None:
    plain = json.loads(encode(FULL))
    del plain["error"]
    del plain["pod"]["sizing"]
    assert decode(json.dumps(plain)).pod.sizing == Sizing()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        encode(FULL).replace('"running"', '"flying"'),
        encode(FULL).replace('"192.0.2.1"', '"192.0.2.x"'),
        encode(FULL).replace('"index":3', '"index":"3"'),
        encode(FULL).replace('"token"', '"tokens"'),
    ],
)
def test_what_is_not_a_record_is_refused(text: str) -> None:
    with pytest.raises(StateError, match="cannot be read"):
        decode(text)
