"""The fake Google Cloud itself, driven by the official SDK in ways that the driver does not use."""

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, Forbidden, NotFound
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import compute_v1
from google.oauth2 import service_account

from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.model.instance import Severity
from caa.provider.registry import driver
from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import key_file
from tests.fakes.gcp.world import launch
from tests.fakes.wire import Wire

HERE = {"project": "demo-project", "zone": "europe-west3-a"}


@pytest.fixture
def wire() -> Iterator[Wire]:
    google = GoogleCloud()
    google.role.listed.add("compute.instances.get")  # the driver does without
    with Wire(google) as made:
        yield made
        google.cloud.over.set()


def client(kind: Any, wire: Wire) -> Any:
    info = json.loads(key_file(wire.url))
    found = service_account.Credentials.from_service_account_info(info)
    return kind(credentials=found, client_options={"api_endpoint": wire.url})


def instance(name: str = "vm-1", **other: Any) -> compute_v1.Instance:
    disk = {"sourceImage": "projects/demo-project/global/images/podvm", "diskName": name}
    disk["diskType"] = "zones/europe-west3-a/diskTypes/pd-ssd"
    body = {
        "name": name,
        "machineType": "zones/europe-west3-a/machineTypes/e2-medium",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": disk}],
        "networkInterfaces": [{"network": "projects/demo-project/global/networks/pods", "stackType": "IPV4_ONLY"}],
        **other,
    }
    return compute_v1.Instance.from_json(json.dumps(body))


def made(wire: Wire, body: compute_v1.Instance) -> None:
    operation = client(compute_v1.InstancesClient, wire).insert_unary(**HERE, instance_resource=body)
    operations = client(compute_v1.ZoneOperationsClient, wire)
    assert operations.wait(**HERE, operation=operation.name).status == compute_v1.Operation.Status.DONE
    assert operations.get(**HERE, operation=operation.name).name == operation.name


def test_an_instance_from_its_making_to_its_end(wire: Wire) -> None:
    instances, disks = client(compute_v1.InstancesClient, wire), client(compute_v1.DisksClient, wire)
    made(wire, instance())
    found = instances.get(**HERE, instance="vm-1")
    assert found.status == "RUNNING"
    assert found.network_interfaces[0].network_i_p.startswith("10.1.")
    assert disks.get(**HERE, disk="vm-1").users == ["vm-1"]
    with pytest.raises(BadRequest, match="already being used"):
        disks.delete_unary(**HERE, disk="vm-1")
    with pytest.raises(Conflict):
        instances.insert_unary(**HERE, instance_resource=instance())
    instances.delete_unary(**HERE, instance="vm-1")
    with pytest.raises(NotFound):
        instances.get(**HERE, instance="vm-1")
    assert not wire.service.cloud.ledger  # type: ignore[attr-defined]


def test_the_pages_of_a_list(wire: Wire) -> None:
    for number in range(5):
        made(wire, instance(f"vm-{number}"))
    request = {"project": "demo-project", "max_results": 2}
    pages = client(compute_v1.InstancesClient, wire).aggregated_list(request=request)
    assert [one.name for _, scope in pages for one in scope.instances] == [f"vm-{number}" for number in range(5)]
    assert wire.calls().count("instances.aggregatedList") == 3


def test_a_body_that_the_api_does_not_know_is_refused(wire: Wire) -> None:
    wrong = (
        instance(
            networkInterfaces=[{"network": "projects/demo-project/global/networks/pods", "stackType": "IPV4_Only"}]
        ),
        instance("UPPER"),
        instance(labels={"Key": "x"}),
        instance(confidentialInstanceConfig={"confidentialInstanceType": "TDX"}),
        instance(machineType="zones/europe-west3-a/machineTypes/none"),
    )
    for body in wrong:
        with pytest.raises(BadRequest):
            client(compute_v1.InstancesClient, wire).insert_unary(**HERE, instance_resource=body)


def test_who_is_not_known_or_not_allowed_is_refused(wire: Wire) -> None:
    nobody = compute_v1.ZonesClient(credentials=AnonymousCredentials(), client_options={"api_endpoint": wire.url})
    with pytest.raises(GoogleAuthError):  # the SDK wants another token after the 401
        nobody.get(**HERE)
    wire.service.role.listed.clear()  # type: ignore[attr-defined]
    with pytest.raises(Forbidden, match=r"compute\.zones\.get"):
        client(compute_v1.ZonesClient, wire).get(**HERE)


def test_a_filter_that_is_none_is_refused(wire: Wire) -> None:
    with pytest.raises(BadRequest):
        list(client(compute_v1.MachineTypesClient, wire).list(request={**HERE, "filter": "name ~ 1"}))


@pytest.fixture
def another() -> Iterator[dict[str, str]]:
    """The settings that `make cloud PROVIDER=gcp` prints in a process of its own, whose ledger is empty at the end."""
    command = [sys.executable, "-m", "tests.fakes.gcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as cloud:
        assert cloud.stdout is not None
        lines = [shlex.split(cloud.stdout.readline())[1] for _ in range(10)]
        yield dict(one.split("=", 1) for one in lines)
        cloud.send_signal(signal.SIGINT)
        assert "0 alive" in cloud.communicate(timeout=10)[1]


async def test_what_make_cloud_prints_is_all_that_a_node_needs(another: dict[str, str], tmp_path: Path) -> None:
    found = driver("gcp")
    environ = another | {"CAA_CATALOGUE_DIR": str(tmp_path)}
    node = found.make(load((*NODE_ROWS, *found.settings), environ))
    assert all(finding.severity is Severity.OK for finding in await node.check())
    made = await node.create(launch())
    await node.delete(made.id)
    await node.close()
