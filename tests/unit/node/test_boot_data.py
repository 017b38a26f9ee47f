"""What the user data is made of, and what is refused before a cloud is asked."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest
import yaml

from caa.errors import InitdataError, InvalidInput, UserDataTooLarge
from caa.model.ids import SandboxId
from caa.model.instance import InitdataDigest
from caa.model.network import PodNetwork, Tunnel
from caa.model.sandbox import Phase, PodSpec, Sandbox
from caa.node.boot_data import GuestSettings, UserData, default_initdata
from caa.userdata import initdata
from caa.userdata.budget import Budget
from caa.wire.certs import ServerIdentity, TlsFiles
from caa.wire.expiry import Expiry

TOML = 'algorithm = "sha256"\nversion = "0.1.0"\n[data]\n'
OTHER = TOML + '"aa.toml" = "x"\n'
RECORD = Sandbox(
    id=SandboxId("s"),
    pod=PodSpec(pod_name="web", pod_namespace="prod", netns="/n"),
    phase=Phase.STARTING,
    instance_name="podvm-web-s",
    token="t",
    boot_id="b",
    created_at=0,
    network=PodNetwork(
        interface="eth0", hwaddr="0a:00:00:00:00:01", mtu=1500, addresses=(ip_interface("10.0.0.2/24"),)
    ),
    tunnel=Tunnel(kind="vxlan", index=0, vni=555000, port=4789, worker=ip_interface("192.0.2.1/24"), mtu=1450),
)


class Certificates:
    def current(self) -> str:
        return "7"

    def client_files(self, ca: str) -> TlsFiles:
        return TlsFiles("", "", "")

    def generation_of(self, ca_file: str) -> str:
        return ""

    def expiries(self) -> Sequence[Expiry]:
        return []

    def server_name(self, instance_name: str) -> str:
        return instance_name

    def server_identity(self, instance_name: str, ca: str) -> ServerIdentity:
        return ServerIdentity(client_ca=f"CA {ca}", cert=f"CERT of {instance_name}", key="KEY")


async def files(data: UserData, record: Sandbox = RECORD) -> dict[str, str]:
    document: dict[str, Any] = yaml.safe_load((await data.render(record)).user_data)
    return {one["path"].rpartition("/")[2]: one.get("content", "") for one in document["write_files"]}


async def test_a_plain_pod() -> None:
    made = await files(UserData(Certificates(), Budget(), settings=GuestSettings()))
    assert list(made) == ["apf.json"]
    assert '"CERT of podvm-web-s"' in made["apf.json"]
    assert '"pod-name": "web"' in made["apf.json"]


async def test_the_pods_initdata_goes_before_the_nodes() -> None:
    data = UserData(Certificates(), Budget(), settings=GuestSettings(initdata=OTHER, scratch_space=True))
    assert initdata.decode((await files(data))["initdata"]) == OTHER
    own = replace(RECORD, pod=replace(RECORD.pod, initdata=TOML))
    made = await files(data, own)
    assert initdata.decode(made["initdata"]) == TOML
    assert "scratch-space.marker" in made


async def test_in_clear_there_is_no_certificate() -> None:
    made = await files(UserData(None, Budget(), settings=GuestSettings()))
    assert "tls-" not in made["apf.json"]


async def test_too_large_is_told_before_the_cloud() -> None:
    with pytest.raises(UserDataTooLarge, match=r"apf\.json"):
        await UserData(Certificates(), Budget(limit=100), settings=GuestSettings()).render(RECORD)


async def test_a_record_without_its_network() -> None:
    with pytest.raises(InvalidInput, match="network"):
        await UserData(None, Budget(), settings=GuestSettings()).render(replace(RECORD, network=None))


async def test_initdata_is_checked_at_create() -> None:
    data = UserData(None, Budget(), settings=GuestSettings())
    await data.validate(RECORD.pod)
    await data.validate(replace(RECORD.pod, initdata=TOML))
    with pytest.raises(InitdataError, match="cc_init_data"):
        await data.validate(replace(RECORD.pod, initdata="x ="))


def test_the_nodes_default() -> None:
    assert default_initdata("") == ""
    assert default_initdata(initdata.encode(TOML)) == TOML
    with pytest.raises(InitdataError, match="INITDATA"):
        default_initdata("AAAA")
    with pytest.raises(InitdataError, match="INITDATA"):
        default_initdata(initdata.encode("x ="))


@pytest.mark.parametrize(
    ("own", "nodes", "expected"),
    [(OTHER, TOML, OTHER), ("", TOML, TOML), ("", "", initdata.DUMMY)],
    ids=["the pod's", "the node's", "the dummy"],
)
async def test_the_digest_is_of_the_initdata_that_the_guest_will_have(own: str, nodes: str, expected: str) -> None:
    """A confidential VM's HOST_DATA or MRCONFIGID is made of it; the guest measures the dummy where there is none."""
    data = UserData(Certificates(), Budget(), settings=GuestSettings(initdata=nodes))
    boot = await data.render(replace(RECORD, pod=replace(RECORD.pod, initdata=own)))
    assert boot.initdata == InitdataDigest(algorithm="sha256", value=hashlib.sha256(expected.encode()).digest())


def test_the_dummys_digest_is_the_one_that_verifiers_know() -> None:
    assert initdata.digest_in_guest("").value.hex() == initdata.DUMMY_DIGEST
