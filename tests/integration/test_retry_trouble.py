"""Trouble in a retry, at any moment: no result is lost, and no line is sent twice for it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import DEFAULT_TENANT
from batchord.lifecycle import Status
from batchord.service import retry
from batchord.state import keys
from batchord.storage import Blobs
from tests.integration.retries import (
    ALL,
    FAILED,
    SUCCEEDED,
    Writes,
    assert_files_are_those_of,
    backend_of,
    ended,
    retry_all,
    retry_some,
)
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    carry_out_with,
    dies_and_is_lost,
    dies_and_is_redelivered,
    each_moment,
    is_cancelled,
    is_overtaken,
    redis_fails,
)
from tests.integration.steps_worker import Died
from workers.lease import Lease

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.integration.steps_worker import Message


pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("stop", [Site.cancel, Site.pass_deadline])
@pytest.mark.parametrize("steps", range(0, 12, 3))
async def test_a_retry_stopped_at_any_moment_keeps_every_success(sites: Sites, steps: int, stop: Any) -> None:
    lines = [
        line(f"{'ok' if number % 4 else 'bad'}-{number}", "two" if number % 3 == 1 else "one") for number in range(24)
    ]
    async with sites.new(seed=steps) as site:
        site.submit(lines)
        before = await ended(site)
        await retry_all(site)
        for _ in range(steps):
            if message := site.take():
                await site.carry_out(message)
        stop(site)
        await site.drive()
        result = site.result()
        assert set(result.succeeded) == set(before.succeeded) | set(site.upstream.calls)
        both = [*result.succeeded, *(custom_id for custom_id, _ in result.unsuccessful)]
        assert sorted(both) == sorted(each["custom_id"] for each in lines)
        assert result.counts["completed"] == len(result.succeeded)
        site.assert_tidy()


@pytest.mark.parametrize("trouble", [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken])
@pytest.mark.parametrize("step", [Step.PLAN, Step.SEAL, Step.FINALIZE])
async def test_trouble_after_any_write_of_a_retry_changes_nothing(sites: Sites, step: Step, trouble: Trouble) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        await retry_some(site, custom_ids=["broken-3"])
        await site.drive()
        expected = site.result()

    async def reach(site: Site) -> Message:
        await ended(site)
        await retry_some(site, custom_ids=["broken-3"])
        return await site.until(step)

    def check(site: Site) -> None:
        assert site.result() == expected
        assert site.upstream.calls == ["broken-3"]
        assert_files_are_those_of(site, 1)
        site.assert_tidy()

    await each_moment(sites, reach, trouble, check)


async def test_a_cancel_after_any_write_of_a_retrys_plan_loses_no_result(sites: Sites) -> None:
    async def reach(site: Site) -> Message:
        await ended(site)
        await retry_all(site)
        return await site.until(Step.PLAN)

    def check(site: Site) -> None:
        result = site.result()
        assert result.status is Status.CANCELLED
        assert result.succeeded == SUCCEEDED
        assert [custom_id for custom_id, _ in result.unsuccessful] == FAILED
        assert_files_are_those_of(site, site.record().produced_round or 0)
        site.assert_tidy()

    async def cancelled_in_the_plan(site: Site, victim: Any, message: Message) -> None:
        await is_cancelled(site, victim, message)

    for number in range(1, 40):
        async with sites.new(seed=number) as site:
            site.submit(mixed_lines())
            if not await carry_out_with(site, await reach(site), number, cancelled_in_the_plan):
                break
            await site.drive()
            check(site)
    assert number > 5


@pytest.mark.parametrize("step", [Step.PLAN, Step.SEAL, Step.FINALIZE])
@pytest.mark.parametrize("moment", range(3))
async def test_a_message_of_an_earlier_round_changes_nothing(sites: Sites, step: Step, moment: int) -> None:
    async with sites.new(seed=moment) as site:
        site.submit(mixed_lines())
        message = await site.until(step)
        await site.carry_out(message)
        await ended(site)
        await retry_all(site)
        if moment:
            await site.carry_out(await site.until(Step.PLAN))
        if moment > 1 and (execute := site.take()):
            await site.carry_out(execute)
        for _ in range(2):
            await site.carry_out(message)
        await site.drive()
        assert (site.result().status, site.result().succeeded) == (Status.COMPLETED, ALL)
        assert sorted(site.upstream.calls) == FAILED
        site.assert_tidy()


async def nothing(_site: Site) -> None:
    """Nobody does anything in between."""


@pytest.mark.parametrize("meanwhile", [nothing, Site.sweep])
async def test_a_request_for_a_retry_that_dies_after_any_write_is_carried_out_or_forgotten(
    sites: Sites, meanwhile: Callable[[Site], Awaitable[None]]
) -> None:
    succeeded = set()
    for number in range(1, 20):
        async with sites.new(seed=number) as site, backend_of(site) as backend:
            site.submit(mixed_lines())
            await ended(site)
            writes = Writes(backend, number, partial(meanwhile, site))
            with suppress(Died):
                await retry.retry(backend, DEFAULT_TENANT, BATCH)
            await site.drive()
            result = site.result()
            assert (result.status, *result.succeeded) in {(Status.COMPLETED, *SUCCEEDED), (Status.COMPLETED, *ALL)}
            assert_files_are_those_of(site, site.record().batch.round)
            assert all("/selection-" in path for path in site.objects())
            succeeded.add(len(result.succeeded))
            assert site.redis.zscore(keys.RETIRED, BATCH)
        if writes.made < number:
            break
    assert (succeeded, number > 3) == ({4, 6}, True)


async def test_the_plan_of_a_retry_keeps_its_lease_with_all_that_it_reads(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    stream, keep = Blobs.stream, Lease.keep

    async def watched_stream(blobs: Blobs, path: str) -> AsyncGenerator[bytes]:
        async for chunk in stream(blobs, path):
            steps.append("read")
            yield chunk

    async def watched_keep(lease: Lease) -> None:
        steps.append("keep")
        await keep(lease)

    async with sites.new() as site:
        site.submit([line(f"bad-{number}", text="x" * 300_000) for number in range(20)])
        await ended(site)
        await retry_all(site)
        plan = await site.until(Step.PLAN)
        with monkeypatch.context() as patch:
            patch.setattr(Blobs, "stream", watched_stream)
            patch.setattr(Lease, "keep", watched_keep)
            await site.carry_out(plan)
        await site.drive()
    assert steps.count("read") > 12
    assert ["read"] * 3 not in [steps[start : start + 3] for start in range(len(steps))]
