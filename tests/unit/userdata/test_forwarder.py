"""apf.json: the reference's fields, our extras, and hostile documents."""

import json
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caa.errors import InvalidInput
from caa.model.network import PodNetwork, Route
from caa.userdata.forwarder import ForwarderConfig, ServerTls, parse, render

# As the reference writes it: Go's zero values, null lists, no keys of ours (reference/podvm.md 2.1).
REFERENCE = """{
    "pod-network": {
        "podip": "10.128.0.12/24",
        "pod-hw-addr": "0a:58:0a:80:00:0c",
        "interface": "eth0",
        "worker-node-ip": "10.10.10.1/24",
        "tunnel-type": "vxlan",
        "routes": [
            {"dst": "", "gw": "10.128.0.1", "dev": "eth0", "protocol": 3},
            {"dst": "10.128.0.0/14", "gw": "", "dev": "eth0", "scope": 253}
        ],
        "neighbors": null,
        "mtu": 1450,
        "index": 1,
        "vxlan-port": 4789,
        "vxlan-id": 555001,
        "dedicated": false,
        "external-net-via-pod-vm": false
    },
    "pod-namespace": "default",
    "pod-name": "nginx",
    "tls-client-ca": "PEM",
    "sc-pp-prv": "AAAA"
}"""


def test_what_we_write_we_read(config: ForwarderConfig) -> None:
    again = parse(render(config))
    assert again.network.routes[:2] == config.network.routes[:2]
    assert set(again.network.routes) == set(config.network.routes)
    assert replace(again, network=config.network) == config
    assert replace(again.network, routes=config.network.routes) == config.network


def test_a_document_of_the_reference() -> None:
    config = parse(REFERENCE)
    assert config.network.addresses == (ip_interface("10.128.0.12/24"),)
    assert config.network.routes == (
        Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.128.0.1"), device="eth0", protocol=3),
        Route(destination=ip_network("10.128.0.0/14"), device="eth0", scope=253),
    )
    assert config.network.neighbours == ()
    assert (config.network.mtu, config.tunnel.mtu, config.tunnel.vni) == (1450, 1450, 555001)
    assert config.tls == ServerTls(client_ca="PEM")


def test_the_fields_are_the_reference_s(config: ForwarderConfig) -> None:
    text = render(config)
    assert text.startswith('{\n    "pod-network": {\n        "podip": "10.244.1.5/24",\n')
    document = json.loads(text)
    network = document["pod-network"]
    assert list(network)[:13] == [
        "podip",
        "pod-hw-addr",
        "interface",
        "worker-node-ip",
        "tunnel-type",
        "routes",
        "neighbors",
        "mtu",
        "index",
        "vxlan-port",
        "vxlan-id",
        "dedicated",
        "external-net-via-pod-vm",
    ]
    assert network["routes"][0] == {"dst": "0.0.0.0/0", "gw": "10.244.1.1", "dev": "eth0", "protocol": 3, "scope": 0}
    assert network["neighbors"] == [{"ip": "10.244.1.1", "hw-addr": "ee:ee:ee:ee:ee:ee", "dev": "eth0", "state": 128}]
    assert document["tls-cipher-suites"] == ["TLS_AES_128_GCM_SHA256"]


def test_a_reference_forwarder_meets_nothing_it_would_misread(config: ForwarderConfig) -> None:
    network = json.loads(render(config))["pod-network"]
    assert all("." in route["dst"] and "table" not in route for route in network["routes"])
    assert [route["dst"] for route in network["extra-routes"]] == ["::/0", "10.9.0.0/16"]
    assert network["podips"] == ["10.244.1.5/24", "fd00:10::5/64"]


def test_a_pod_with_ipv6_only(config: ForwarderConfig) -> None:
    network = PodNetwork(
        interface="eth0",
        hwaddr=config.network.hwaddr,
        mtu=1400,
        addresses=(ip_interface("fd00::5/64"),),
        routes=(Route(destination=ip_network("::/0"), gateway=ip_address("fd00::1"), device="eth0"),),
    )
    alone = replace(config, network=network)
    document = json.loads(render(alone))["pod-network"]
    assert document["podip"] == "fd00::5/64"
    assert not {"podips", "extra-routes", "pod-mtu"} & set(document)
    assert parse(render(alone)) == alone


def test_tls_fields_without_content_are_left_out(config: ForwarderConfig) -> None:
    document = json.loads(render(replace(config, tls=ServerTls())))
    assert [key for key in document if key.startswith("tls-")] == []


def test_a_network_without_address_is_refused(config: ForwarderConfig) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        render(replace(config, network=replace(config.network, addresses=())))


def test_the_key_is_in_no_repr(config: ForwarderConfig) -> None:
    secret = replace(config, tls=ServerTls(key="PRIVATE"))
    assert "PRIVATE" not in repr(secret)


@pytest.mark.parametrize(
    "text", ["", "[]", "nul", "{}", '{"pod-network": []}', "[" * 100_000, '"' + "x" * 2_000_000 + '"']
)
def test_documents_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"apf\.json"):
        parse(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("podip", "10.0.0.1/33"),
        ("podip", ""),
        ("podip", 5),
        ("podips", ["10.0.0.1/24", 5]),
        ("podips", "10.0.0.1/24"),
        ("pod-hw-addr", "zz"),
        ("pod-hw-addr", None),
        ("interface", "../../etc"),
        ("interface", ".."),
        ("interface", "x" * 16),
        ("worker-node-ip", "host"),
        ("mtu", -1),
        ("mtu", 1.5),
        ("mtu", True),
        ("vxlan-id", 2**24),
        ("vxlan-port", 65536),
        ("index", "1"),
        ("dedicated", "yes"),
        ("routes", {}),
        ("routes", ["x"]),
        ("routes", [{"dst": "x"}]),
        ("routes", [{"gw": "10.0.0.0/8"}]),
        ("routes", [{"dev": "a b"}]),
        ("neighbors", [{"ip": "", "hw-addr": "ee:ee:ee:ee:ee:ee"}]),
        ("neighbors", [{"ip": "10.0.0.1", "hw-addr": ""}]),
    ],
)
def test_a_bad_field_is_named_and_not_shown(key: str, value: Any) -> None:
    document = json.loads(REFERENCE)
    document["pod-network"][key] = value
    with pytest.raises(InvalidInput, match=r"apf\.json pod-network") as caught:
        parse(json.dumps(document))
    assert "etc" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tls-min-version", "VersionTLS10"), ("tls-server-key", 1), ("pod-name", []), ("tls-cipher-suites", "X")],
)
def test_bad_fields_outside_the_network(key: str, value: Any) -> None:
    document = json.loads(REFERENCE)
    document[key] = value
    with pytest.raises(InvalidInput, match=key):
        parse(json.dumps(document))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(list(json.loads(REFERENCE)["pod-network"])), _JSON)
def test_any_value_in_any_field_is_taken_or_refused(key: str, value: Any) -> None:
    document = json.loads(REFERENCE)
    document["pod-network"][key] = value
    with suppress(InvalidInput):  # every other exception fails the test
        assert parse(json.dumps(document)).network.interface
