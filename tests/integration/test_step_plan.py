"""The step plan: whatever happens to it, the same shards are laid once, or the batch fails and nothing is left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from tests.integration.steps import Result, Site, Sites, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    changes_nothing,
    dies_and_is_lost,
    dies_and_is_redelivered,
    each_moment,
    is_cancelled,
    is_cancelled_and_overtaken,
    is_overtaken,
    redis_fails,
    undisturbed,
)

if TYPE_CHECKING:
    from tests.integration.steps_worker import Message


pytestmark = pytest.mark.timeout(120)


async def planning(site: Site) -> Message:
    return await site.until(Step.PLAN)


@pytest.mark.parametrize("trouble", [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken])
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    await changes_nothing(sites, planning, trouble)


@pytest.mark.parametrize("trouble", [is_cancelled, is_cancelled_and_overtaken])
async def test_a_cancel_after_any_write_sends_nothing_and_leaves_nothing(sites: Sites, trouble: Trouble) -> None:
    statuses = set()

    def check(site: Site) -> None:
        statuses.add(site.result().status)
        if site.result().status is Status.CANCELLED:
            assert site.upstream.calls == []
            assert site.result().output is None
            total = site.record().batch.request_counts.total
            assert [code for _, code in site.result().unsuccessful] == ["batch_cancelled"] * total
        site.assert_tidy()

    await each_moment(sites, planning, trouble, check)
    assert statuses == {Status.CANCELLED, Status.COMPLETED}  # completed without trouble


async def test_two_plans_at_once_lay_the_batch_once(sites: Sites) -> None:
    expected = await undisturbed(sites, mixed_lines())
    async with sites.new(workers=3) as site:
        site.submit(mixed_lines())
        message = await site.until(Step.PLAN)
        await asyncio.gather(*(worker.carry_out(message) for worker in site.workers))
        await site.drive()
        assert site.result() == expected
        assert len(site.upstream.calls) == len(mixed_lines())
        site.assert_tidy()


async def test_a_plan_delivered_after_the_end_changes_nothing(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        [message] = site.messages()
        await site.drive()
        ended = site.result()
        await site.carry_out(message)
        await site.drive()
        assert site.result() == ended
        site.assert_tidy()


async def test_a_batch_cancelled_before_its_plan_is_not_planned(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        assert site.cancel() is Status.CANCELLING
        await site.drive()
        assert site.result() == Result(Status.CANCELLED, None, None, site.result().counts)
        assert (site.upstream.calls, site.record().batch.request_counts.total) == ([], 0)
        site.assert_tidy()


async def test_an_input_file_deleted_before_the_plan_fails_the_batch(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.workers[0].context.blobs.delete_folder("files/")
        await site.drive()
        [problem] = site.record().batch.errors
        assert (site.result().status, problem.code, problem.line) == (Status.FAILED, "invalid_request", None)
        site.assert_tidy()


async def test_a_problem_in_the_last_line_fails_the_batch_and_leaves_no_shard(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([*mixed_lines(), line("ok-0"), line("ok-9", "three")])
        message = await site.until(Step.PLAN)
        await site.carry_out(message)
        assert {message.step for message in site.messages()} == {Step.FINALIZE}
        await site.drive()
        problems = [(problem.line, problem.code) for problem in site.record().batch.errors]
        assert problems == [(7, "duplicate_custom_id"), (8, "model_not_found")]
        assert (site.result().status, site.upstream.calls) == (Status.FAILED, [])
        site.assert_tidy()


@pytest.mark.parametrize("trouble", [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken])
async def test_trouble_after_any_write_of_a_refusal_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    lines = [*mixed_lines(), line("ok-0")]

    def check(site: Site) -> None:
        assert (site.result().status, len(site.record().batch.errors)) == (Status.FAILED, 1)
        assert site.upstream.calls == []
        site.assert_tidy()

    await each_moment(sites, planning, trouble, check, lines)


async def test_a_shard_is_as_large_as_the_settings_say(sites: Sites) -> None:
    async with sites.new(shard_lines=100, shard_bytes=700, window_lines=100) as site:
        site.submit([line(f"ok-{number}", text="x" * 200) for number in range(8)])
        await site.carry_out(await site.until(Step.PLAN))
        assert site.record().shards["one"].planned == 4
        await site.drive()
        assert len(site.result().succeeded) == 8
