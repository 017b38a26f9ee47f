"""A pod's network in two families, and a strict YAML reader such as the guest's."""

from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
import yaml

from caa.model.network import Neighbour, PodNetwork, Route, Tunnel
from caa.userdata.forwarder import ForwarderConfig, ServerTls

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def network() -> PodNetwork:
    return PodNetwork(
        interface="eth0",
        hwaddr="0a:58:0a:f4:01:05",
        mtu=1450,
        addresses=(ip_interface("10.244.1.5/24"), ip_interface("fd00:10::5/64")),
        routes=(
            Route(destination=ip_network("0.0.0.0/0"), gateway=ip_address("10.244.1.1"), device="eth0", protocol=3),
            Route(destination=ip_network("10.0.0.0/8"), device="eth0", scope=253, metric=5, onlink=True),
            Route(destination=ip_network("::/0"), gateway=ip_address("fd00:10::1"), device="eth0"),
            Route(destination=ip_network("10.9.0.0/16"), source=ip_address("10.244.1.5"), device="eth0", table=100),
        ),
        neighbours=(
            Neighbour(address=ip_address("10.244.1.1"), lladdr="ee:ee:ee:ee:ee:ee", device="eth0"),
            Neighbour(address=ip_address("fd00:10::1"), lladdr="ee:ee:ee:ee:ee:ee", device="eth0", state=0x40),
        ),
    )


@pytest.fixture
def config(network: PodNetwork) -> ForwarderConfig:
    return ForwarderConfig(
        pod_name="nginx",
        pod_namespace="default",
        network=network,
        tunnel=Tunnel(kind="vxlan", index=7, vni=555007, port=4789, worker=ip_interface("192.168.1.9/24"), mtu=1400),
        tls=ServerTls(
            client_ca=PEM, cert=PEM, key="KEY", min_version="VersionTLS13", cipher_suites=("TLS_AES_128_GCM_SHA256",)
        ),
    )


@pytest.fixture(scope="session")
def read_strictly() -> Callable[[bytes], dict[str, str]]:
    """Files by path as a strict reader sees them; it fails on every key but the two that the guest knows."""

    def read(document: bytes) -> dict[str, str]:
        assert document.startswith(b"#cloud-config\n")
        loaded: Any = yaml.load(document, Loader=yaml.SafeLoader)
        if loaded is None:
            return {}
        assert set(loaded) == {"write_files"}
        files: dict[str, str] = {}
        for entry in loaded["write_files"]:
            assert set(entry) <= {"path", "content"}
            assert all(isinstance(value, str) for value in entry.values())
            files[entry["path"]] = entry.get("content", "")
        assert len(files) == len(loaded["write_files"])
        return files

    return read
