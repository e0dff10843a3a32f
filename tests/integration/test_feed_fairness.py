"""Batches that share a provider: whose lines go first, who may go beyond the window, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from batchord.state import keys, waiting
from tests.integration.steps import Site, Sites, line
from tests.integration.steps_worker import Died, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.steps_worker import Worker

pytestmark = pytest.mark.timeout(120)

LARGE, SMALL, OTHER = (f"batch_{digit * 32}" for digit in "abc")


def submit(site: Site, batch_id: str, lines: int, tenant: str, **changes: int) -> None:
    """Create a batch whose custom_ids begin with `ok`, then the first letter of its id's digits."""
    ids = [f"ok-{batch_id[-1]}-{number}" for number in range(lines)]
    site.submit([line(each) for each in ids], batch_id, tenant=tenant, **changes)


async def planned(site: Site) -> None:
    """Carry out what is asked for but for the lines themselves."""
    while waiting_now := site.messages("control"):
        site.redis.lrem("control", 1, waiting_now[0].raw)
        await site.carry_out(waiting_now[0])


async def in_queue_order(site: Site) -> list[str]:
    """Carry out every line in the order of the provider's queue, and give of which batch each was."""
    await planned(site)
    while lines := site.messages("provider.one"):
        site.redis.lrem("provider.one", 1, lines[0].raw)
        await site.carry_out(lines[0])
        await planned(site)
    return [custom_id.split("-")[1] for custom_id in site.upstream.calls]


def batches_waiting(site: Site) -> list[str]:
    return [each.batch_id for each in site.client.state.run(waiting.queue("one")).first]


def open_lines(site: Site) -> dict[str, int]:
    return dict(site.client.state.run(waiting.queue("one")).open_lines)


async def test_a_small_batch_waits_for_no_more_than_a_window_of_another_tenants_large_one(sites: Sites) -> None:
    async with sites.new(window_lines=6) as site:
        submit(site, LARGE, 60, "large")
        await planned(site)
        submit(site, SMALL, 2, "small")
        order = await in_queue_order(site)
        assert order == ["a"] * 6 + ["b"] * 2 + ["a"] * 54
        assert site.sweeps == 0
        assert open_lines(site) == {}


async def test_tenants_that_wait_take_turns_by_their_weights(sites: Sites) -> None:
    async with sites.new(window_lines=12, tenant_weights={"heavy": 3}) as site:
        submit(site, LARGE, 90, "heavy")
        submit(site, SMALL, 30, "light")
        order = await in_queue_order(site)
        assert order[:60].count("b") == pytest.approx(15, abs=3)
        assert len(order) == 120


async def test_in_a_tenant_the_earlier_deadline_goes_first_and_then_the_older_batch(sites: Sites) -> None:
    async with sites.new() as site:
        submit(site, LARGE, 9, "same", created_at=1_000_000_001, expires_at=4_000_000_000)
        await planned(site)
        submit(site, SMALL, 6, "same", created_at=1_000_000_000, expires_at=4_000_000_000)
        submit(site, OTHER, 6, "same", created_at=1_000_000_002, expires_at=3_999_999_999)
        order = await in_queue_order(site)
        assert "".join(order) == "aaa" + "cccccc" + "bbbbbb" + "aaaaaa"


async def test_the_window_is_of_all_batches_and_a_tenant_without_an_open_line_goes_beyond_it(sites: Sites) -> None:
    async with sites.new(window_lines=6) as site:
        submit(site, LARGE, 9, "one")
        submit(site, SMALL, 9, "one")
        await planned(site)
        assert open_lines(site) == {"one": 6}
        submit(site, OTHER, 9, "two")
        await planned(site)
        assert open_lines(site) == {"one": 6, "two": 3}
        await site.drive()
        assert all(site.record(each).batch.request_counts.completed == 9 for each in (LARGE, SMALL, OTHER))
        site.assert_tidy(LARGE, SMALL, OTHER)
        assert not site.redis.exists(keys.waiting("one"), keys.tenant_lines("one"))


async def test_feeds_of_many_batches_at_once_do_not_overfill_the_window(sites: Sites) -> None:
    async with sites.new(workers=4, window_lines=6) as site:
        for batch_id in (LARGE, SMALL, OTHER):
            submit(site, batch_id, 12, "one")
        await asyncio.gather(*(site.carry_out(message) for message in site.messages("control")))
        feeds = [Message(Step.FEED, (each,)) for each in (LARGE, SMALL, OTHER)] * 4
        await asyncio.gather(*map(site.carry_out, feeds))
        assert open_lines(site) == {"one": 6}
        assert len(site.messages("provider.one")) == 6


@pytest.mark.parametrize("stop", [Site.cancel, Site.pass_deadline])
async def test_a_batch_that_is_stopped_leaves_its_turn_to_the_next(
    sites: Sites, stop: Callable[[Site, str], object]
) -> None:
    async with sites.new() as site:
        submit(site, LARGE, 9, "same", expires_at=3_999_999_998)
        submit(site, SMALL, 6, "same", expires_at=3_999_999_999)
        await planned(site)
        assert batches_waiting(site) == [LARGE]
        stop(site, LARGE)
        await site.drive()
        assert site.result(LARGE).status in {Status.CANCELLED, Status.EXPIRED}
        assert len(site.result(SMALL).succeeded) == 6
        assert batches_waiting(site) == []
        site.assert_tidy(LARGE, SMALL)


async def test_a_worker_that_dies_while_it_feeds_another_batch_leaves_nothing_behind(sites: Sites) -> None:
    for death in range(1, 40):
        async with sites.new(seed=death) as site:
            submit(site, LARGE, 6, "one")
            submit(site, SMALL, 6, "two")
            seal = await site.until(Step.SEAL)
            victim = await site.worker()
            await carry_out_until(victim, seal, death)
            site.pass_time()
            await site.drive()
            assert sorted(site.upstream.calls) == sorted(f"ok-{batch}-{n}" for batch in "ab" for n in range(6))
            site.assert_tidy(LARGE, SMALL)
            assert not site.redis.exists(keys.waiting("one"), keys.tenant_lines("one"))
            if victim.writes < death:
                return
    raise AssertionError("the seal has more writes than expected")


async def carry_out_until(victim: Worker, message: Message, death: int) -> None:
    """Have a worker carry out a message and die, for ever, after its write of this number."""

    async def after_write(written: int) -> None:
        if written == death:
            await victim.die()

    victim.after_write = after_write
    with suppress(Died):
        await victim.carry_out(message)
    victim.after_write = None
