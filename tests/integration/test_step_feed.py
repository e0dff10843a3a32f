"""The step feed: each shard is opened once, in a window, and whatever fails, its lines are published."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines
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
)
from tests.integration.steps_worker import Died, Message

pytestmark = pytest.mark.timeout(120)


TROUBLES = [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken]


async def planned(site: Site) -> Message:
    """Have the batch planned by a worker that dies before it feeds it."""
    message = await site.until(Step.PLAN)
    planner = await site.worker()

    async def after_write(_number: int) -> None:
        if site.record().batch.status is Status.IN_PROGRESS:
            await planner.die()

    planner.after_write = after_write
    with suppress(Died):
        await planner.carry_out(message)
    site.pass_time()
    return Message(Step.FEED, (BATCH,))


def open_lines(site: Site, provider: str) -> int:
    return int(site.redis.hget(f"batchord:{{{BATCH}}}", f"open_lines:{provider}"))


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    await changes_nothing(sites, planned, trouble)


@pytest.mark.parametrize("trouble", [is_cancelled, is_cancelled_and_overtaken])
async def test_a_cancel_after_any_write_sends_nothing_and_leaves_nothing(sites: Sites, trouble: Trouble) -> None:
    statuses = set()

    def check(site: Site) -> None:
        statuses.add(site.result().status)
        if site.result().status is Status.CANCELLED:
            assert site.upstream.calls == []
            expected = [(line["custom_id"], "batch_cancelled") for line in mixed_lines()]
            assert site.result().unsuccessful == expected
        site.assert_tidy()

    await each_moment(sites, planned, trouble, check)
    assert statuses == {Status.CANCELLED, Status.COMPLETED}  # completed without trouble


async def test_feeds_at_once_publish_each_line_once(sites: Sites) -> None:
    async with sites.new(workers=4, window_lines=6) as site:
        site.submit(mixed_lines())
        message = await planned(site)
        living = [worker for worker in site.workers if not worker.dead]
        await asyncio.gather(*(worker.carry_out(message) for worker in living * 3))
        published = [message.args for message in site.messages() if message.step is Step.EXECUTE]
        shards = {("one", 0): 3, ("one", 1): 1, ("two", 0): 2}
        assert sorted(published) == [
            (BATCH, *shard, index) for shard, lines in shards.items() for index in range(lines)
        ]


async def test_the_window_is_never_overrun_and_small_against_the_file(sites: Sites) -> None:
    most = {"one": 0, "two": 0}
    lines = [line(f"ok-{number}", "one" if number % 4 else "two") for number in range(60)]

    async with sites.new(workers=2, window_lines=6) as site:

        async def after_write(_number: int) -> None:
            for provider in site.record().shards:
                waiting = site.redis.llen(f"provider.{provider}")
                most[provider] = max(most[provider], open_lines(site, provider), waiting)

        site.submit(lines)
        for worker in site.workers:
            worker.after_write = after_write
        await site.drive()
        assert most == {"one": 6, "two": 6}
        assert site.result().succeeded == [line["custom_id"] for line in lines]
        assert site.sweeps == 0
        site.assert_tidy()


async def test_a_shard_larger_than_the_window_is_opened_alone(sites: Sites) -> None:
    async with sites.new(shard_lines=5, window_lines=2) as site:
        site.submit([line(f"ok-{number}") for number in range(12)])
        await site.carry_out(await site.until(Step.PLAN))
        assert open_lines(site, "one") == 5
        await site.drive()
        assert len(site.result().succeeded) == 12
        assert site.sweeps == 0


async def test_a_provider_that_is_slow_does_not_hold_up_the_other(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line(f"ok-{number}", "two" if number < 6 else "one") for number in range(12)])
        await site.carry_out(await site.until(Step.PLAN))
        while fast := site.messages("control", "provider.one"):
            site.redis.lrem(fast[0].queue, 1, fast[0].raw)
            await site.carry_out(fast[0])
        assert site.upstream.calls == [f"ok-{number}" for number in range(6, 12)]
        await site.drive()
        assert site.result().succeeded == [f"ok-{number}" for number in range(12)]


async def test_the_feed_of_an_unknown_batch_or_of_one_being_validated_does_nothing(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        waiting = site.messages()
        await site.carry_out(Message(Step.FEED, (BATCH,)))
        await site.carry_out(Message(Step.FEED, ("batch_" + "1" * 32,)))
        assert site.messages() == waiting
        assert site.failures == []
