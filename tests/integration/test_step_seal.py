"""The step seal: a shard's outcomes become its parts, once and all of them, and nothing of it stays in Redis."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    changes_nothing,
    dies_and_is_lost,
    dies_and_is_redelivered,
    is_overtaken,
    redis_fails,
    undisturbed,
)
from tests.integration.steps_worker import Message

if TYPE_CHECKING:
    from workers.providers import Request


pytestmark = pytest.mark.timeout(120)


TROUBLES = [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken]


async def sealing(site: Site) -> Message:
    return await site.until(Step.SEAL)


async def uncounted(site: Site) -> Message:
    """Have every line of the open shards recorded, while the chords never hear of it; give the seal of one."""
    await site.carry_out(await site.until(Step.PLAN))
    while message := site.take():
        await site.carry_out(replace(message, group=None))
    return Message(Step.SEAL, (BATCH, "one", 0))


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    await changes_nothing(sites, sealing, trouble)


@pytest.mark.parametrize(
    "trouble",
    [
        dies_and_is_redelivered,
        dies_and_is_lost,
        redis_fails,
        is_overtaken,
    ],
)
async def test_trouble_after_any_write_changes_nothing_where_the_chord_is_not_complete(
    sites: Sites, trouble: Trouble
) -> None:
    await changes_nothing(sites, uncounted, trouble)


async def test_seals_at_once_are_as_good_as_one(sites: Sites) -> None:
    expected = await undisturbed(sites, mixed_lines())
    async with sites.new(workers=4) as site:
        site.submit(mixed_lines())
        message = await sealing(site)
        await asyncio.gather(*(worker.carry_out(message) for worker in site.workers * 2))
        await site.drive()
        assert site.result() == expected
        assert len(site.upstream.calls) == len(mixed_lines())
        site.assert_tidy()


async def test_a_seal_that_comes_too_early_loses_no_line_and_sends_none_twice(sites: Sites) -> None:
    expected = await undisturbed(sites, mixed_lines())
    async with sites.new() as site:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        for _ in range(3):
            await site.carry_out(Message(Step.SEAL, (BATCH, "one", 0)))
        await site.drive()
        assert site.result() == expected
        assert len(site.upstream.calls) == len(mixed_lines())
        site.assert_tidy()


async def test_a_seal_that_finds_lines_missing_has_them_published_at_once(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line(f"ok-{number}") for number in range(3)])
        await site.carry_out(await site.until(Step.PLAN))
        lost, *kept = site.messages("provider.one")
        site.redis.delete("provider.one")
        await site.carry_out(kept[0])
        await site.carry_out(Message(Step.SEAL, (BATCH, "one", 0)))
        assert [message.args for message in site.messages("provider.one")] == [lost.args, kept[1].args]
        await site.drive()
        assert site.result().succeeded == ["ok-0", "ok-1", "ok-2"]
        site.assert_tidy()


@pytest.mark.parametrize("moment", range(4))
async def test_an_early_seal_does_not_send_what_a_living_worker_sends(sites: Sites, moment: int) -> None:
    lines = [line(f"ok-{number}") for number in range(3)]
    async with sites.new(seed=moment) as site:
        site.submit(lines)
        await site.carry_out(await site.until(Step.PLAN))

        async def seal_now(_request: Request) -> None:
            await site.carry_out(Message(Step.SEAL, (BATCH, "one", 0)))

        site.upstream.meanwhile = seal_now
        await site.drive()
        assert sorted(site.upstream.calls) == ["ok-0", "ok-1", "ok-2"]
        site.assert_tidy()


async def test_a_seal_delivered_after_the_end_changes_nothing(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        message = await sealing(site)
        await site.carry_out(message)
        await site.drive()
        ended = site.result()
        await site.carry_out(message)
        await site.drive()
        assert site.result() == ended
        site.assert_tidy()


async def test_a_shards_records_leave_redis_with_its_seal(sites: Sites) -> None:
    async with sites.new(shard_lines=100, window_lines=100) as site:
        site.submit([line(f"ok-{number}") for number in range(100)])
        message = await sealing(site)
        assert site.redis.hlen(f"batchord:{{{BATCH}}}:outcomes:one:0") == 100
        await site.carry_out(message)
        kinds = {key.split(":")[2] for key in site.redis.scan_iter(f"batchord:{{{BATCH}}}:*")}
        assert kinds <= {"lines", "analytics"}


async def test_a_storage_that_fails_in_the_middle_of_a_part_leaves_no_part(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line(f"large-{number}") for number in range(3)])
        message = await sealing(site)
        [large, *_] = sorted((site.settings.data_dir / "storage").rglob("large/*/*/1-*"))
        kept = large.rename(large.with_suffix(".away"))
        await site.carry_out(message)
        assert not [path for path in site.objects() if "/output/" in path]
        kept.rename(large)
        site.failures.clear()
        await site.drive()
        assert site.result().succeeded == ["large-0", "large-1", "large-2"]
        site.assert_tidy()
