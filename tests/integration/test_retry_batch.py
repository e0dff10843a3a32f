"""A batch's further rounds: what had no success runs again, what had one is kept."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import line_id, produced_file_id
from batchord.lifecycle import Status
from batchord.service import results
from batchord.state import keys
from batchord.storage import paths
from tests.integration.retries import (
    ALL,
    FAILED,
    SUCCEEDED,
    assert_files_are_those_of,
    backend_of,
    ended,
    retry_all,
    retry_some,
)
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from batchord.service.backend import Backend


pytestmark = pytest.mark.timeout(120)


async def test_a_retry_sends_what_had_no_success_and_keeps_the_rest(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before = await ended(site)
        assert ([custom_id for custom_id, _ in before.unsuccessful], before.succeeded) == (FAILED, SUCCEEDED)
        await retry_all(site)
        assert site.record().batch.status is Status.VALIDATING
        await site.drive()
        assert sorted(site.upstream.calls) == FAILED
        result = site.result()
        assert (result.status, result.succeeded, result.errors) == (Status.COMPLETED, ALL, None)
        assert result.counts == before.counts | {"completed": 6, "failed": 0, "tokens": before.counts["tokens"] + 10}
        assert set((before.output or b"").splitlines()) < set((result.output or b"").splitlines())
        assert_files_are_those_of(site, 1)
        site.assert_tidy()


async def test_a_line_keeps_what_was_tried_for_it_through_the_rounds(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)

        def attempts(round_: int) -> list[bytes]:
            path = paths.file(produced_file_id(BATCH, "attempts", round_))
            return b"".join(site.client.blobs.stream(path)).splitlines()

        first = attempts(0)
        await retry_some(site, custom_ids=["bad-1"])
        await site.drive()
        second = attempts(1)
        assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, *[True] * 4]


@pytest.mark.parametrize(
    "named", [{"custom_ids": ["broken-3"]}, {"request_ids": [line_id(BATCH, 4)]}, {"custom_ids": ["broken-3"] * 3}]
)
async def test_only_the_lines_asked_for_run_again(sites: Sites, named: dict[str, list[str]]) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before = await ended(site)
        await retry_some(site, **named)
        await site.drive()
        assert site.upstream.calls == ["broken-3"]
        result = site.result()
        assert result.succeeded == [custom_id for custom_id in ALL if custom_id != "bad-1"]
        assert result.unsuccessful == before.unsuccessful[:1]
        assert (result.counts["completed"], result.counts["failed"]) == (5, 1)
        assert_files_are_those_of(site, 1)
        site.assert_tidy()


async def test_a_batch_is_retried_again_and_again(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        site.upstream.healed = False
        await retry_all(site)
        await site.drive()
        assert [custom_id for custom_id, _ in site.result().unsuccessful] == FAILED
        assert_files_are_those_of(site, 1)
        site.upstream.healed = True
        await retry_some(site, custom_ids=["bad-1"])
        await site.drive()
        await retry_all(site)
        await site.drive()
        assert (site.result().succeeded, site.record().batch.round) == (ALL, 3)
        assert_files_are_those_of(site, 3)
        site.assert_tidy()


@pytest.mark.parametrize(("stop", "status"), [(Site.cancel, Status.CANCELLED), (Site.pass_deadline, Status.EXPIRED)])
async def test_lines_that_were_never_sent_run_in_a_retry(sites: Sites, stop: Any, status: Status) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        stop(site)
        await ended(site)
        assert (site.result().status, site.result().output) == (status, None)
        await retry_all(site)
        await site.drive()
        assert (site.result().status, site.result().succeeded) == (Status.COMPLETED, ALL)
        assert (site.result().counts["cancelled"], site.result().counts["expired"]) == (0, 0)
        site.assert_tidy()


@pytest.mark.parametrize(("stop", "code"), [(Site.cancel, "batch_cancelled"), (Site.pass_deadline, "batch_expired")])
async def test_a_retry_of_some_lines_ends_as_they_end_and_not_as_the_others_had(
    sites: Sites, stop: Any, code: str
) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        stop(site)
        await ended(site)
        await retry_some(site, custom_ids=["ok-4"])
        await site.drive()
        result, batch = site.result(), site.record().batch
        assert (result.status, result.succeeded) == (Status.COMPLETED, ["ok-4"])
        assert {each for _, each in result.unsuccessful} == {code}
        assert (batch.expired_at, batch.cancelled_at) == (None, None)
        site.assert_tidy()


async def test_lines_that_the_storage_had_lost_run_in_a_retry(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        [part] = (site.settings.data_dir / "storage").rglob("input/two/0.jsonl")
        part.unlink()
        await ended(site)
        assert [custom_id for custom_id, code in site.result().unsuccessful if code == "input_lost"] == ["", ""]
        async with backend_of(site) as backend:
            record, query = site.record(), results.ResultQuery()
            extent = await results.measure(backend, record, query)
            rows = b"".join([chunk async for chunk in results.give(backend, record, query, extent)]).splitlines()
            assert [json.loads(row)["line"] for row in rows] == [0, 0, 1, 3, 4, 6]
        await retry_all(site)
        await site.drive()
        assert (site.result().succeeded, site.result().counts["completed"]) == (ALL, 6)
        site.assert_tidy()


async def test_a_cancel_before_the_round_starts_leaves_the_results_of_before(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before = await ended(site)
        await retry_all(site)
        site.cancel()
        await site.drive()
        after = site.result()
        assert (after.status, after.output, after.errors) == (Status.CANCELLED, before.output, before.errors)
        assert after.counts == before.counts
        assert_files_are_those_of(site, 0)
        site.assert_tidy()
        await retry_all(site)
        await site.drive()
        assert site.result().succeeded == ALL
        site.assert_tidy()


async def test_a_retry_whose_input_is_gone_ends_as_the_batch_had_ended(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        before, batch = await ended(site), site.record().batch
        await retry_all(site)
        (site.settings.data_dir / "storage" / "files" / batch.input_file_id).unlink()
        await site.drive()
        assert site.result() == before
        assert site.record().batch == batch.model_copy(update={"round": 1})
        assert site.upstream.calls == []
        assert_files_are_those_of(site, 0)
        site.assert_tidy()


async def test_a_batch_that_is_retried_is_not_removed_when_its_first_retention_is_over(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        await retry_all(site)
        site.redis.zadd(keys.RETIRED, {BATCH: 1})
        await site.sweep()
        await site.drive()
        await site.sweep()
        assert site.result().succeeded == ALL
        site.assert_tidy()


async def test_a_batch_is_removed_with_its_files_when_its_retention_is_over(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        await retry_all(site)
        await site.drive()
        input_file_id = site.record().batch.input_file_id
        site.redis.zadd(keys.RETIRED, {BATCH: 1})
        site.redis.hset(keys.batch(BATCH), "ended_ms", 1)
        await site.sweep()
        assert site.state_keys() == []
        assert not site.redis.exists(keys.RETIRED)
        folder = site.settings.data_dir / "storage" / "files"
        assert [path.name for path in folder.iterdir()] == [input_file_id]


async def peak_bytes(work: Awaitable[object]) -> int:
    """Give the most memory that something takes."""
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_many_lines_take_no_more_memory_than_few_in_a_retry_or_in_results(sites: Sites) -> None:
    plans, readings = [], []
    for lines in (400, 2_000):
        async with sites.new(shard_lines=100, window_lines=100) as site, backend_of(site) as backend:
            site.submit([line(f"ok-{number}", text="x" * 10_000) for number in range(lines)])
            await site.carry_out(await site.until(Step.PLAN))
            site.cancel()
            await site.drive()
            record, query = site.record(), results.ResultQuery()

            async def read(backend: Backend = backend, record: Any = record, query: Any = query) -> None:
                extent = await results.measure(backend, record, query)
                async for _ in results.give(backend, record, query, extent):
                    pass

            readings.append(await peak_bytes(read()))
            await retry_all(site)
            plans.append(await peak_bytes(site.carry_out(await site.until(Step.PLAN))))
            shards = site.record().shards["one"]
            assert shards.planned - shards.first == lines // 100
    assert plans[1] < 1.5 * plans[0]
    assert readings[1] < 1.5 * readings[0]
