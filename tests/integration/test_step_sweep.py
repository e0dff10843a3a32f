"""The step sweep: it ends what lost messages, dead workers and lost chords left behind, and leaves all else alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from batchord.state import keys
from batchord.state.keys import Shard
from tests.integration.steps import BATCH, QUEUES, Site, Sites, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    changes_nothing,
    dies_and_is_lost,
    is_overtaken,
    redis_fails,
    undisturbed,
)
from tests.integration.steps_worker import Died, Message

pytestmark = pytest.mark.timeout(120)


SWEEP = Message(Step.SWEEP, ())


def lose_messages(site: Site) -> None:
    site.redis.delete(*QUEUES)


async def nothing_planned(site: Site) -> None:
    """The message of the plan is lost."""


async def nothing_published(site: Site) -> None:
    """The plan died before it fed the batch."""
    planner = await site.worker()

    async def after_write(_number: int) -> None:
        if site.record().batch.status is Status.IN_PROGRESS:
            await planner.die()

    planner.after_write = after_write
    with suppress(Died):
        await planner.carry_out(await site.until(Step.PLAN))


async def some_sent(site: Site) -> None:
    """Some lines are recorded; the messages of the others are lost."""
    await site.carry_out(await site.until(Step.PLAN))
    for message in site.messages("provider.one", "provider.two")[1:4]:
        await site.carry_out(message)


async def claimed_by_the_dead(site: Site) -> None:
    """Workers died while they were sending; their claims have run out."""
    await site.carry_out(await site.until(Step.PLAN))
    for message in site.messages("provider.one", "provider.two"):
        worker = await site.worker()
        await worker.context.desk.begin(Shard(BATCH, str(message.args[1]), 0), int(message.args[3]))
    site.pass_time()


async def all_recorded(site: Site) -> None:
    """Every line of the open shards is recorded; the seals are lost."""
    await site.carry_out(await site.until(Step.PLAN))
    for message in site.messages("provider.one", "provider.two"):
        await site.carry_out(message)


async def chords_lost(site: Site) -> None:
    """Some lines are recorded; the keys of the chords are gone, but the messages are there."""
    await site.carry_out(await site.until(Step.PLAN))
    site.redis.delete(*site.redis.keys("batchord:*:chord:*"))


async def all_sealed(site: Site) -> None:
    """Every shard is sealed; the message of the finalize is lost."""
    await site.until(Step.FINALIZE)


async def ended(site: Site) -> None:
    """The finalize died right after it set the terminal status."""
    message = await site.until(Step.FINALIZE)
    finalizer = await site.worker()

    async def after_write(_number: int) -> None:
        if site.record().batch.status.is_terminal:
            await finalizer.die()

    finalizer.after_write = after_write
    with suppress(Died):
        await finalizer.carry_out(message)


LEFT_BEHIND = [nothing_planned, nothing_published, some_sent, claimed_by_the_dead, all_recorded, all_sealed, ended]
Left = Callable[[Site], Awaitable[None]]


@pytest.mark.parametrize("left", [*LEFT_BEHIND, chords_lost])
async def test_whatever_was_left_behind_is_ended(sites: Sites, left: Left) -> None:
    expected = await undisturbed(sites, mixed_lines())
    async with sites.new() as site:
        site.submit(mixed_lines())
        await left(site)
        site.pass_time()
        if left is not chords_lost:
            lose_messages(site)
        await site.drive()
        assert site.result() == expected
        assert len(site.upstream.calls) == len(mixed_lines())
        site.assert_tidy()


@pytest.mark.parametrize(
    ("left", "trouble"),
    [
        (nothing_published, dies_and_is_lost),
        (some_sent, dies_and_is_lost),
        (some_sent, is_overtaken),
        (all_recorded, redis_fails),
        (ended, dies_and_is_lost),
        (ended, is_overtaken),
    ],
)
async def test_trouble_after_any_write_changes_nothing(sites: Sites, left: Left, trouble: Trouble) -> None:
    async def reach(site: Site) -> Message:
        await left(site)
        site.pass_time()
        lose_messages(site)
        return SWEEP

    await changes_nothing(sites, reach, trouble)


async def test_sweeps_at_once_send_no_line_twice(sites: Sites) -> None:
    async with sites.new(workers=4) as site:
        site.submit(mixed_lines())
        await some_sent(site)
        lose_messages(site)
        await asyncio.gather(*(worker.carry_out(SWEEP) for worker in site.workers * 2))
        await site.drive()
        assert len(site.upstream.calls) == len(mixed_lines())
        site.assert_tidy()


async def test_a_batch_that_moves_is_left_alone(sites: Sites) -> None:
    async with sites.new(stall_s=3_600) as site:
        site.submit(mixed_lines())
        while message := site.take():
            site.put_back(message)
            waiting = [message for message in site.messages() if message.step is not Step.FINALIZE]
            await site.sweep()
            assert [message for message in site.messages() if message.step is not Step.FINALIZE] == waiting
            site.redis.lrem(message.queue, 1, message.raw)
            await site.carry_out(message)
        assert site.result().status is Status.COMPLETED
        site.assert_tidy()


async def test_lines_that_wait_in_a_long_queue_are_not_published_again_and_again(sites: Sites) -> None:
    async with sites.new(stall_s=1, shard_lines=10, window_lines=40) as site:
        site.submit([line(f"ok-{number}") for number in range(100)])
        await site.carry_out(await site.until(Step.PLAN))
        assert site.redis.llen("provider.one") == 40
        for _ in range(10):
            for number in range(4):
                site.redis.zadd(keys.open_shards(BATCH, "one"), {number: time.time() - 30})
            await site.sweep()
        assert site.redis.llen("provider.one") <= 80


@pytest.mark.parametrize(("stop", "status"), [(Site.cancel, Status.CANCELLED), (Site.pass_deadline, Status.EXPIRED)])
async def test_a_stopped_batch_ends_though_nobody_serves_a_providers_queue(
    sites: Sites, stop: Callable[[Site], object], status: Status
) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        stop(site)
        for _ in range(20):
            await site.sweep()
            for message in site.messages("control", "provider.one"):
                site.redis.lrem(message.queue, 1, message.raw)
                await site.carry_out(message)
        site.redis.delete("provider.two")
        assert site.result().status is status
        assert len(site.result().unsuccessful) == len(mixed_lines())
        site.assert_tidy()


async def test_a_lost_line_is_published_again_though_other_batches_keep_its_queue_long(sites: Sites) -> None:
    async with sites.new(stall_s=1, shard_lines=10, window_lines=40) as site:
        site.submit([line(f"ok-{number}") for number in range(10)])
        await site.carry_out(await site.until(Step.PLAN))
        lost, *others = site.messages("provider.one")
        site.redis.delete("provider.one")
        for message in others:
            await site.carry_out(message)
        site.submit([line(f"ok-{number}") for number in range(40)], "batch_" + "1" * 32)
        await site.carry_out(await site.until(Step.PLAN))
        site.redis.zadd(keys.open_shards(BATCH, "one"), {0: time.time() - 3_600})
        await site.sweep()
        assert lost.args in [message.args for message in site.messages("provider.one")]


async def test_a_file_whose_time_is_over_is_deleted_and_no_other(sites: Sites) -> None:
    async with sites.new() as site:
        old, young = (site.client._upload(mixed_lines(), None, None).id for _ in range(2))
        site.redis.zadd(keys.FILES, {old: 1})
        site.redis.hset(keys.file(old), "expires_at", 1)
        await site.sweep()
        kept = [path.name for path in (site.settings.data_dir / "storage" / "files").iterdir()]
        assert (kept, site.redis.zrange(keys.FILES, 0, -1)) == ([young], [young])
        assert (site.redis.exists(keys.file(old)), site.redis.exists(keys.file(young))) == (0, 1)


async def test_a_batch_that_cannot_be_removed_hinders_no_other(sites: Sites) -> None:
    ids = ["batch_" + digit * 32 for digit in "01"]
    async with sites.new() as site:
        for batch_id in ids:
            site.submit([line("ok-1")], batch_id)
            await site.drive()
        file = site.settings.data_dir / "storage" / "files" / str(site.record(ids[0]).batch.output_file_id)
        file.unlink()
        (file / "in-the-way").mkdir(parents=True)
        for batch_id, due in zip(ids, (1, 2), strict=True):
            site.redis.zadd(keys.RETIRED, {batch_id: due})
            site.redis.hset(keys.batch(batch_id), "ended_ms", 1)
        await site.sweep()
        assert [site.redis.exists(keys.batch(batch_id)) for batch_id in ids] == [1, 0]
        (file / "in-the-way").rmdir()
        file.rmdir()
        await site.sweep()
        assert [site.redis.exists(keys.batch(batch_id)) for batch_id in ids] == [0, 0]


async def test_a_batch_that_was_never_created_leaves_the_list_but_not_at_once(sites: Sites) -> None:
    async with sites.new(stall_s=100) as site:
        ages = {"batch_young": time.time() - 50, "batch_old": time.time() - 150}
        site.redis.zadd(keys.ACTIVE, ages)
        await site.sweep()
        assert site.redis.zrange(keys.ACTIVE, 0, -1) == ["batch_young"]


async def test_a_batch_that_was_never_planned_is_tidied_without_an_error(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([])
        await site.drive()
        assert site.result().status is Status.FAILED
        site.assert_tidy()
