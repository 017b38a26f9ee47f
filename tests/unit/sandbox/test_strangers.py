"""Pods of another provider: a node with a changed CLOUD_PROVIDER does not start, unless it is told to give them up."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from caa.errors import ConfigError
from caa.model.ids import SandboxId
from caa.model.sandbox import Phase
from caa.sandbox.strangers import refusal, settle, strangers

ONE, TWO = SandboxId("a" * 64), SandboxId("b" * 64)


async def of_aws(bench: Any) -> None:
    """One runs, one is only created; a node with another provider comes then."""
    await bench.service.create(ONE, bench.pod())
    await bench.service.start(ONE)
    await bench.service.create(TWO, bench.pod("two"))
    bench.store.rows[ONE] = replace(bench.store.rows[ONE], provider="aws")
    await bench.restart()


async def test_the_refusal_names_setting_pods_and_ways_out(bench: Any) -> None:
    await of_aws(bench)
    with pytest.raises(ConfigError) as refused:
        await settle(bench.service, "libvirt", forgotten="")
    for part in ("CLOUD_PROVIDER", "'libvirt'", "1 pods", "default/web (i-1)", "back to aws", "FORGET_PROVIDER"):
        assert part in str(refused.value)
    assert bench.store.rows[ONE].phase is Phase.RUNNING
    assert bench.provider.living.keys() == {"i-1"}


async def test_the_same_provider_goes_on(bench: Any) -> None:
    await of_aws(bench)
    await settle(bench.service, "aws", forgotten="")
    assert bench.store.rows[ONE].phase is Phase.RUNNING


async def test_a_record_of_an_earlier_version_names_none(bench: Any) -> None:
    await of_aws(bench)
    (record, *_) = bench.service.records()
    assert strangers([replace(record, provider="")], "libvirt") == []
    assert strangers([record], "libvirt") == [record]
    assert strangers([replace(record, reached="")], "libvirt") == [], "nothing was made for it"


async def test_another_name_does_not_forget(bench: Any) -> None:
    await of_aws(bench)
    with pytest.raises(ConfigError, match="aws"):
        await settle(bench.service, "libvirt", forgotten="azure")


async def test_given_up_they_leave_their_instance_and_nothing_else(bench: Any) -> None:
    await of_aws(bench)
    theirs = dict(bench.provider.living)
    bench.provider.living.clear()  # the cloud of now is another one
    await settle(bench.service, "libvirt", forgotten="aws")
    async with asyncio.timeout(10):
        await bench.service.settled()
    assert theirs.keys() == {"i-1"}
    assert bench.left_over() == {}
    assert list(bench.store.rows) == [TWO]
    assert "provider.delete" not in bench.faults.calls, "an id of one cloud means nothing in another"


async def test_many_are_counted_not_listed(bench: Any) -> None:
    await of_aws(bench)
    (record, *_) = bench.service.records()
    text = refusal([record] * 30, "libvirt")
    assert "30 pods" in text
    assert "and 25 more" in text
    assert text.count("default/web") == 5
