"""What the clouds' drivers refuse before they begin, because no cloud would take it: each with its setting's name."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from caa.config.load import load
from caa.config.node import NODE_ROWS
from caa.errors import ConfigError
from providers import aws, azure, gcp

_GCP = {"GCP_PROJECT_ID": "a-project", "GCP_ZONE": "europe-west3-a", "GCP_NETWORK": "pods"}


@pytest.mark.parametrize(
    ("driver", "settings", "told"),
    [
        (aws, {"FALLBACK_ZONES": "eu-west-1b"}, "FALLBACK_ZONES: 'eu-west-1b'.* a subnet id such as subnet-"),
        (azure, {"FALLBACK_ZONES": "2,westeurope"}, "FALLBACK_ZONES: 'westeurope'.* a zone's number$"),
        (gcp, {"FALLBACK_ZONES": "europe-west3"}, "FALLBACK_ZONES: 'europe-west3'.* a zone such as europe-west3-a"),
        (azure, {"SSH_USERNAME": "root"}, "SSH_USERNAME .*'root'"),
        (gcp, {"GCP_NETWORK_TAGS": "podvm,Nodes"}, "GCP_NETWORK_TAGS"),
        (gcp, {"EXTERNAL_NETWORK_VIA_PODVM": "true"}, "set GCP_EXTERNAL_NETWORK"),
        (gcp, {"EXTERNAL_NETWORK_VIA_PODVM": "true", "GCP_EXTERNAL_NETWORK": "pods"}, "another one than GCP_NETWORK"),
        (aws, {"AWS_TENANCY": "dedicated", "AWS_DEDICATED_HOST_ID": "h-1"}, "AWS_TENANCY is dedicated"),
        (aws, {"AWS_ACCESS_KEY_ID": "a", "AWS_CAPACITY_BLOCK": "1"}, "(?s)AWS_SECRET_ACCESS_KEY.*RESERVATION_ID"),
    ],
)
def test_what_cannot_be_is_refused_at_once(driver: ModuleType, settings: Mapping[str, str], told: str) -> None:
    own = _GCP if driver is gcp else {}
    with pytest.raises(ConfigError, match=told):
        driver.make(load((*NODE_ROWS, *driver.SETTINGS), {**own, **settings}))


@pytest.mark.parametrize(
    ("driver", "settings"),
    [
        (aws, {"FALLBACK_ZONES": "subnet-0123456789abcdef0", "AWS_TENANCY": "host", "AWS_DEDICATED_HOST_ID": "h-1"}),
        (azure, {"FALLBACK_ZONES": "2,3", "SSH_USERNAME": "rooted"}),
        (gcp, {"FALLBACK_ZONES": "northamerica-northeast1-b,us-central1-a", "GCP_NETWORK_TAGS": "podvm,n0-des"}),
    ],
)
def test_what_can_be_is_taken(driver: ModuleType, settings: Mapping[str, str]) -> None:
    own = _GCP if driver is gcp else {}
    assert driver.make(load((*NODE_ROWS, *driver.SETTINGS), {**own, **settings}))


@pytest.mark.parametrize("driver", [aws, azure, gcp], ids=["aws", "azure", "gcp"])
def test_the_example_of_the_page_is_taken(driver: ModuleType) -> None:
    name = driver.__name__.rpartition(".")[2]
    page = (Path(__file__).parents[3] / "docs/providers" / f"{name}.md").read_text()
    (start,) = re.findall(rf"^CLOUD_PROVIDER={name}\n(?:[A-Z_]+=.*\n)+", page, re.MULTILINE)
    example = dict(line.split("=", 1) for line in start.splitlines())
    settings = load((*NODE_ROWS, *driver.SETTINGS), example)
    assert driver.make(settings)
    known = {item.row.env for item in settings} | {"CLOUD_PROVIDER", "CAA_CLUSTER_ID"}
    assert not example.keys() - known
