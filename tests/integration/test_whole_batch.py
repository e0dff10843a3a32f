"""A whole batch through all six steps, in any order of the messages, with losses, repeats and deaths all along."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from batchord.state import keys
from tests.integration.steps import BATCH, QUEUES, Sites, line, mixed_lines
from tests.integration.steps_trouble import undisturbed

if TYPE_CHECKING:
    from tests.integration.steps import Site
    from tests.integration.steps_worker import Worker


pytestmark = pytest.mark.timeout(120)


def many_lines(lines: int) -> list[dict[str, Any]]:
    kinds = ["ok", "ok", "bad", "ok", "large", "ok", "broken"]
    return [line(f"{kinds[number % 7]}-{number}", "two" if number % 5 == 3 else "one") for number in range(lines)]


@pytest.mark.parametrize("seed", range(4))
async def test_messages_lost_and_repeated_in_any_order_change_nothing(sites: Sites, seed: int) -> None:
    lines = many_lines(30)
    expected = await undisturbed(sites, lines)
    async with sites.new(seed=seed, workers=3, window_lines=6) as site:
        site.submit(lines)
        await site.drive(at_once=4, lose=0.1, repeat=0.2)
        assert site.result() == expected
        assert sorted(site.upstream.calls) == sorted(line["custom_id"] for line in lines)
        site.assert_tidy()


@pytest.mark.parametrize("seed", range(4))
async def test_workers_that_die_all_along_change_nothing(sites: Sites, seed: int) -> None:
    lines = many_lines(20)
    expected = await undisturbed(sites, lines)
    deaths = 0
    async with sites.new(seed=seed, workers=0, window_lines=6) as site:

        def mortal(worker: Worker) -> None:
            async def after_write(_number: int) -> None:
                nonlocal deaths
                if site.random.random() < 0.05:
                    deaths += 1
                    await worker.die()

            worker.after_write = after_write
            quarantine = worker.context.quarantine  # its processes would answer as the simulated provider does
            vars(quarantine)["send"] = lambda _provider, request: site.upstream.send(request)

        site.submit(lines)
        site.on_join = mortal
        await site.join()
        await site.drive(lose=0.05, repeat=0.1, most_sweeps=1_000)
        assert site.result() == expected
        assert deaths > 0
        assert len(site.upstream.calls) - len(lines) <= deaths
        site.assert_tidy()


async def test_batches_beside_each_other_do_not_meet(sites: Sites) -> None:
    expected = await undisturbed(sites, mixed_lines())
    other = "batch_" + "1" * 32
    async with sites.new(workers=2) as site:
        site.submit(mixed_lines())
        site.submit([line(f"ok-{number}", "two") for number in range(7)], other)
        for _ in range(8):
            if message := site.take():
                await site.carry_out(message)
        site.cancel(other)
        await site.drive(at_once=3)
        assert site.result() == expected
        assert site.result(other).status is Status.CANCELLED
        done = [*site.result(other).succeeded, *(custom_id for custom_id, _ in site.result(other).unsuccessful)]
        assert sorted(done) == [f"ok-{number}" for number in range(7)]
        site.assert_tidy(BATCH, other)


async def test_the_plan_of_many_lines_takes_no_more_memory_than_that_of_few(sites: Sites) -> None:
    peaks, redis_bytes = [], []
    for lines in (5_000, 25_000):
        async with sites.new(shard_lines=1_000, window_lines=4_000) as site:
            site.submit([line(f"ok-{number}", text="x" * 200) for number in range(lines)])
            message = await site.until(Step.PLAN)
            before = site.redis.info("memory")["used_memory"]
            tracemalloc.start()
            try:
                await site.carry_out(message)
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            redis_bytes.append(site.redis.info("memory")["used_memory"] - before)
            assert site.record().shards["one"].planned == lines // 1_000
            assert site.redis.llen("provider.one") == 4_000
    assert peaks[1] < 1.5 * peaks[0]
    assert redis_bytes[1] < 1.2 * redis_bytes[0]


def held_bytes(site: Site) -> int:
    """Give what Redis holds of batches and messages."""
    names = [*site.redis.scan_iter("batchord:*"), *(queue for queue in QUEUES if site.redis.exists(queue))]
    return sum(site.redis.memory_usage(name, samples=0) or 0 for name in names)


async def test_what_redis_holds_is_bounded_by_the_window_from_begin_to_end(sites: Sites) -> None:
    most: list[int] = []
    for lines in (250, 1_000):
        held = [0]
        async with sites.new(shard_lines=25, window_lines=100) as site:
            site.submit([line(f"ok-{number}", text="x" * 500) for number in range(lines)])
            while site.redis.exists(keys.ACTIVE):
                taken = [message for _ in range(20) if (message := site.take())]
                await asyncio.gather(*map(site.carry_out, taken))
                held.append(held_bytes(site))
            assert len(site.result().succeeded) == lines
            assert site.sweeps == 0
        most.append(max(held))
    assert most[0] > 100 * 500
    assert most[1] < 1.5 * most[0]
