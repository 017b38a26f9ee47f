"""The fake Google Cloud is Google's for its other library too, which reads the API's own description.

`googleapiclient` makes its calls from the discovery documents; the driver uses `google-cloud-compute`.
tests/contract/test_fake_gcp.py drives the fake with that one, in ways that the driver does not use.
"""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth
import google_auth_httplib2
import httplib2
import pytest
from google.auth.credentials import with_scopes_if_required
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from tests.fakes.faults import Fault
from tests.fakes.gcp.cloud import GoogleCloud
from tests.fakes.gcp.identity import EMAIL, federation_file, key_file
from tests.fakes.wire import Wire

PROJECT, ZONE = "demo-project", "europe-west3-a"
HERE = {"project": PROJECT, "zone": ZONE}
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture
def google_cloud() -> Iterator[GoogleCloud]:
    found = GoogleCloud()
    found.role.listed |= {"compute.instances.get", "compute.instances.create"}
    yield found
    found.cloud.over.set()


@pytest.fixture
def wire(google_cloud: GoogleCloud) -> Iterator[Wire]:
    with Wire(google_cloud) as made:
        yield made


@pytest.fixture
def compute(wire: Wire) -> Iterator[Any]:
    with service("compute", "v1", wire) as made:
        yield made


def service(name: str, version: str, wire: Wire) -> Any:
    info = json.loads(key_file(wire.url))
    found = service_account.Credentials.from_service_account_info(info, scopes=SCOPES)
    http = google_auth_httplib2.AuthorizedHttp(found, http=httplib2.Http())
    base = f"{wire.url}/compute/v1/" if name == "compute" else wire.url
    return build(name, version, http=http, client_options={"api_endpoint": base}, static_discovery=True)


def body(name: str = "vm-1", **other: Any) -> dict[str, Any]:
    disk = {"sourceImage": f"projects/{PROJECT}/global/images/podvm", "diskName": name}
    disk["diskType"] = f"zones/{ZONE}/diskTypes/pd-ssd"
    return {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/n2d-standard-2",
        "disks": [{"boot": True, "autoDelete": True, "initializeParams": disk}],
        "networkInterfaces": [{"network": f"projects/{PROJECT}/global/networks/pods", "stackType": "IPV4_ONLY"}],
        **other,
    }


def done(compute: Any, operation: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compute.zoneOperations().wait(**HERE, operation=operation["name"]).execute()
    assert found["status"] == "DONE"
    return found


def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        call.execute()
    error = json.loads(caught.value.content)["error"]
    reason = error["errors"][0]["reason"] if "errors" in error else error["status"]
    return caught.value.status_code, reason


def test_a_life(compute: Any, google_cloud: GoogleCloud) -> None:
    assert "error" not in done(compute, compute.instances().insert(**HERE, body=body()).execute())
    found = compute.instances().get(**HERE, instance="vm-1").execute()
    assert found["status"] == "RUNNING"
    assert google_cloud.cloud.ledger.cost_per_hour() > 0
    done(compute, compute.instances().delete(**HERE, instance="vm-1").execute())
    assert refused(compute.instances().get(**HERE, instance="vm-1")) == (404, "notFound")
    assert refused(compute.instances().delete(**HERE, instance="vm-1")) == (404, "notFound")
    assert not google_cloud.cloud.ledger


def test_a_request_id_stands_for_one_operation(compute: Any, google_cloud: GoogleCloud) -> None:
    """Also with another body, also when its instance is long gone."""
    key = str(uuid.uuid4())
    first = compute.instances().insert(**HERE, requestId=key, body=body()).execute()
    again = compute.instances().insert(**HERE, requestId=key, body=body(description="another")).execute()
    assert again["name"] == first["name"]
    compute.instances().delete(**HERE, instance="vm-1").execute()
    assert compute.instances().insert(**HERE, requestId=key, body=body()).execute()["name"] == first["name"]
    assert google_cloud.cloud.ledger.made["instance"] == 1
    assert not google_cloud.cloud.ledger
    for bad in ("token", str(uuid.UUID(int=0))):
        assert refused(compute.instances().insert(**HERE, requestId=bad, body=body())) == (400, "invalid")


def test_no_room_is_told_by_the_operation(compute: Any, google_cloud: GoogleCloud) -> None:
    google_cloud.faults.full = {("n2d-standard-2", ZONE)}
    failed = done(compute, compute.instances().insert(**HERE, body=body()).execute())
    assert failed["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert not google_cloud.cloud.ledger
    google_cloud.cloud.half_made = True
    done(compute, compute.instances().insert(**HERE, body=body()).execute())
    assert [one.kind for one in google_cloud.cloud.ledger.alive()] == ["disk"]
    done(compute, compute.disks().delete(**HERE, disk="vm-1").execute())
    assert not google_cloud.cloud.ledger


def test_quota_is_what_the_region_says(compute: Any, google_cloud: GoogleCloud) -> None:
    google_cloud.cloud.quotas["N2D_CPUS"] = 3
    compute.instances().insert(**HERE, body=body()).execute()
    region = compute.regions().get(project=PROJECT, region="europe-west3").execute()
    quotas = {one["metric"]: (one["limit"], one["usage"]) for one in region["quotas"]}
    assert quotas["N2D_CPUS"] == (3, 2)
    assert quotas["INSTANCES"][1] == 1
    assert refused(compute.instances().insert(**HERE, body=body("vm-2"))) == (403, "quotaExceeded")


def test_rate_latency_and_late_sight(compute: Any, google_cloud: GoogleCloud) -> None:
    google_cloud.faults.visible_after, google_cloud.faults.latency = 0.2, 0.05
    begin = time.monotonic()
    compute.instances().insert(**HERE, body=body()).execute()
    assert time.monotonic() - begin >= 0.05
    assert instances(compute) == []
    time.sleep(0.2)
    assert instances(compute) == ["vm-1"]
    google_cloud.faults.latency, google_cloud.faults.calls_per_second = 0, 5
    assert {status(compute.zones().get(**HERE)) for _ in range(20)} == {200, 403}


def status(call: Any) -> int:
    try:
        call.execute()
    except HttpError as error:
        return int(error.status_code)
    return 200


def instances(compute: Any) -> list[str]:
    scopes = compute.instances().aggregatedList(project=PROJECT).execute()["items"]
    return [one["name"] for scope in scopes.values() for one in scope.get("instances", ())]


def test_an_answer_that_is_lost_after_the_effect(compute: Any, google_cloud: GoogleCloud) -> None:
    """httplib2 asks once more when a connection ends, and finds that its first request was heard."""
    google_cloud.faults.plan("instances.insert", Fault.LOST_ANSWER)
    assert refused(compute.instances().insert(**HERE, body=body())) == (409, "alreadyExists")
    assert instances(compute) == ["vm-1"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"networkInterfaces": [{"network": f"projects/{PROJECT}/global/networks/none", "stackType": "IPV4_ONLY"}]},
        {"labels": {"caa-sandbox": "UPPER"}},
        {"confidentialInstanceConfig": {"confidentialInstanceType": "TDX"}},
        {"metadata": {"items": [{"key": "user-data", "value": "x" * 262145}]}},
        {"guestAccelerators": [{"acceleratorType": f"zones/{ZONE}/acceleratorTypes/none", "acceleratorCount": 1}]},
        {"params": {"resourceManagerTags": {"tagKeys/11": "tagValues/99"}}},
        {"scheduling": {"provisioningModel": "SPOT", "automaticRestart": True}},
        {"unknown": True},
        {"status": "RUNNING"},
        {"cpuPlatform": 3},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_the_cloud_refuses(compute: Any, google_cloud: GoogleCloud, wrong: dict[str, Any]) -> None:
    assert refused(compute.instances().insert(**HERE, body=body() | wrong))[0] in (400, 403, 404, 413)
    assert google_cloud.cloud.ledger.made == {}


def test_rights_are_asked_for_by_names_that_exist(compute: Any, wire: Wire, google_cloud: GoogleCloud) -> None:
    images = compute.images()

    def asked(*names: str) -> Any:
        return images.testIamPermissions(project=PROJECT, resource="podvm", body={"permissions": list(names)})

    assert asked("compute.images.useReadOnly").execute() == {"permissions": ["compute.images.useReadOnly"]}
    google_cloud.role.listed.discard("compute.images.useReadOnly")
    assert asked("compute.images.useReadOnly").execute() == {}
    for wrong in (("compute.instances.create",), ("compute.images.nothing",), ("compute.images.*",), ()):
        assert refused(asked(*wrong))[0] == 400, wrong
    with service("cloudresourcemanager", "v3", wire) as manager:
        wanted = {"permissions": ["compute.instances.create", "compute.instances.delete"]}
        assert manager.projects().testIamPermissions(resource=f"projects/{PROJECT}", body=wanted).execute() == wanted
        elsewhere = manager.projects().testIamPermissions(resource="projects/nobodys", body=wanted)
        assert refused(elsewhere) == (404, "NOT_FOUND")
        found = manager.tagValues().getNamespaced(name=f"{PROJECT}/team/blue").execute()
        assert (found["parent"], found["name"]) == ("tagKeys/11", "tagValues/12")
        assert refused(manager.tagValues().getNamespaced(name=f"{PROJECT}/team/red")) == (403, "PERMISSION_DENIED")


def test_disks_of_a_region_and_rules_of_a_network(compute: Any, google_cloud: GoogleCloud) -> None:
    google_cloud.cloud.make_regional_disk(["europe-west3-a", "europe-west3-b"], "pvc")
    disk = compute.regionDisks().get(project=PROJECT, region="europe-west3", disk="pvc").execute()
    assert [one.rpartition("/")[2] for one in disk["replicaZones"]] == ["europe-west3-a", "europe-west3-b"]
    rules = compute.networks().getEffectiveFirewalls(project=PROJECT, network="pods").execute()
    assert rules["firewalls"][0]["sourceTags"] == ["nodes"]


class TestTokens:
    """google-auth by itself, as its page has it."""

    def test_federation(self, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        token, file = tmp_path / "token", tmp_path / "adc.json"
        token.write_text("cluster-token-1")
        file.write_text(federation_file(wire.url, str(token), impersonate=True))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        found = with_scopes_if_required(google.auth.default()[0], SCOPES)
        found.refresh(Request())
        assert found.valid
        assert wire.service.identity.given == ["federation", "impersonation"]  # type: ignore[attr-defined]

    def test_a_token_that_ran_out_is_asked_for_again(self, wire: Wire) -> None:
        found = service_account.Credentials.from_service_account_info(json.loads(key_file(wire.url)), scopes=SCOPES)
        found.refresh(Request())
        first = found.token
        found.refresh(Request())
        assert found.token != first
        assert found.service_account_email == EMAIL
