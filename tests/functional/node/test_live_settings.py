"""What a change of settings reaches in the assembled node: every live row, the driver's own ones included."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from caa.config.kinds import LIST, STRING
from caa.config.load import Settings, load
from caa.config.node import NODE_ROWS
from caa.config.setting import AnySetting, Setting
from caa.errors import CaaError, ConfigError
from caa.model.ids import SandboxId
from caa.model.instance import InstanceType, LaunchRequest, Owner
from caa.node import parts
from caa.node.certificates import Rules as CertificateRules
from caa.node.parts import Parts, assembled
from caa.node.reload import changes
from caa.provider.registry import Driver
from caa.testing.faulty import MemoryCloud
from caa.userdata import initdata

TYPES: Setting[tuple[str, ...]] = Setting(name="types", env="TYPES", kind=LIST, default=("small",), help="", live=True)
REGION: Setting[str] = Setting(name="region", env="REGION", kind=STRING, default="here", help="")
ROWS: tuple[AnySetting, ...] = (*NODE_ROWS, TYPES, REGION)
OWNER = Owner(cluster="c", node="n")


class Cloud(MemoryCloud):
    """Knows the types of its settings; `closed` tells when it was let go."""

    def __init__(self, settings: Settings) -> None:
        if "broken" in settings[TYPES]:
            raise ConfigError("TYPES: broken is not a type of this cloud")
        super().__init__()
        self.types = [InstanceType(name=name, vcpus=1, memory_mib=1) for name in settings[TYPES]]
        self.closed = False

    async def instance_types(self) -> list[InstanceType]:
        return self.types

    async def close(self) -> None:
        self.closed = True


class Node:
    """The parts, and the settings they have."""

    def __init__(self, folder: Path, made: list[Cloud]) -> None:
        self.environ = {"CAA_STATE_DIR": f"{folder}/state", "CAA_RUN_DIR": str(folder), "CAA_CLUSTER_ID": "c"}
        self.clouds = made
        self.settings = load(ROWS, self.environ)
        self.parts: Parts

    async def begin(self) -> None:
        self.parts = await assembled(self.settings)

    def change(self, **environ: str) -> None:
        fresh = load(ROWS, {**self.environ, **environ})
        self.parts.apply(fresh, changes(self.settings, fresh))
        self.settings = fresh

    async def end(self) -> None:
        for close in (self.parts.service.close, self.parts.provider.close, self.parts.store.close):
            await close()


@pytest.fixture
async def live(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    made: list[Cloud] = []

    def make(settings: Settings) -> Cloud:
        made.append(Cloud(settings))
        return made[-1]

    monkeypatch.setattr(parts, "driver", lambda name: Driver(name=name, settings=(TYPES, REGION), make=make))
    node = Node(folder, made)
    await node.begin()
    yield node
    await node.end()


async def test_times_and_rules(live: Node) -> None:
    live.change(
        START_TIMEOUT="5m", UNSTARTED_GRACE="1m", UNOPENED_GRACE="2s", CLOSED_GRACE="0",
        ENABLE_GC="no", GC_INTERVAL="7m", GC_GRACE_PERIOD="1s", GC_DRY_RUN="yes",
        CAA_CA_ROTATION="24h", CAA_CERT_WARNING="48h",
    )  # fmt: skip
    node = live.parts
    assert node.service.limits.start == 300
    assert (node.abandonment.graces.unstarted, node.abandonment.graces.unopened) == (60, 2)
    assert node.abandonment.graces.closed == 0
    rules = node.sweep.rules
    assert (rules.enabled, rules.interval, rules.grace, rules.dry_run) == (False, 420, 1, True)
    assert node.upkeep.rules == CertificateRules(rotation=timedelta(days=1), warning=timedelta(days=2))
    assert len(live.clouds) == 1, "the driver's own settings have not changed"


async def test_what_pod_vms_are_given(live: Node) -> None:
    allowed = "169.254.169.254/32"
    live.change(INITDATA=initdata.encode(initdata.DUMMY), ENABLE_SCRATCH_SPACE="true", LINK_LOCAL_ALLOW=allowed)
    assert [str(network) for network in live.parts.boot_data.settings.allow_link_local] == [allowed]
    assert live.parts.boot_data.settings.initdata == initdata.DUMMY
    assert live.parts.boot_data.settings.scratch_space


async def test_the_driver_s_own_settings(live: Node) -> None:
    request = LaunchRequest(name="vm", sandbox=SandboxId("s"), owner=OWNER, token="t", user_data=b"")
    await live.parts.provider.create(request)
    live.change(TYPES="small,large")
    assert [one.name for one in await live.parts.provider.instance_types()] == ["small", "large"]
    await live.parts.driver.close()
    assert [one.closed for one in live.clouds] == [True, True]


@pytest.mark.parametrize("environ", [{"TYPES": "broken"}, {"TYPES": "large", "INITDATA": "AAAA"}])
async def test_all_or_nothing(live: Node, environ: dict[str, str]) -> None:
    with pytest.raises(CaaError):
        live.change(**environ, START_TIMEOUT="5m")
    assert live.parts.service.limits.start == 600
    assert [one.name for one in await live.parts.provider.instance_types()] == ["small"]


async def test_the_rows_that_are_live_are_those_that_are_applied() -> None:
    """A row that is marked and not taken over would be a promise nobody keeps."""
    assert {row.name for row in NODE_ROWS if row.live} == {
        "start_timeout", "drain_grace", "unstarted_grace", "unopened_grace", "closed_grace",
        "enable_gc", "gc_interval", "gc_grace_period", "gc_dry_run",
        "initdata", "enable_scratch_space", "external_network_via_podvm", "log_level", "log_format",
        "ca_rotation", "cert_warning", "link_local_allow",
    }  # fmt: skip
