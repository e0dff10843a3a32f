"""The step execute among workers that die, stop and come back: who lost a claim sends nothing, and changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from batchord.state import keys
from batchord.state.keys import Shard
from batchord.state.shards import Contact
from tests.integration.steps import BATCH, BOUND_S, Site, Sites, came, line
from tests.integration.test_step_execute import Hold, opened

if TYPE_CHECKING:
    from tests.integration.steps_worker import Message

pytestmark = pytest.mark.timeout(120)


async def kill_senders(site: Site, message: Message, deaths: int) -> None:
    """Have so many workers die while they send a line."""
    for _ in range(deaths):
        worker = await site.worker()
        await worker.context.desk.begin(Shard(BATCH, str(message.args[1]), 0), int(message.args[3]))
        site.pass_time()


def late(site: Site) -> int:
    return int(site.redis.hget(keys.batch(BATCH), "late") or 0)


async def test_the_late_answer_of_a_worker_that_was_stopped_is_dropped_and_counted(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line("ok-0"))
        stopped, other = site.workers
        hold, hold_other = Hold(site.upstream), Hold(site.upstream)
        site.upstream.meanwhile = hold._meanwhile
        late_answer = await hold.of(stopped, message)
        site.pass_time()
        site.upstream.meanwhile = hold_other._meanwhile
        sending = await hold_other.of(other, message)
        hold.may_answer.set()
        await late_answer
        assert (late(site), site.record().recorded) == (1, 0)
        await stopped.context.desk.beat()
        hold_other.may_answer.set()
        await sending
        await site.drive()
        assert (site.result().succeeded, late(site)) == (["ok-0"], 1)
        site.assert_tidy()


async def test_a_worker_that_was_stopped_before_it_sent_asks_again_and_does_not_send(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        messages = await opened(site, line("ok-0"), line("ok-1"))
        stopped, other = site.workers
        stopped.context.resize("one", 1)
        stopped.context.desk.verdict_life_s = 0
        hold = Hold(site.upstream)
        first = await hold.of(stopped, messages[0])
        second = asyncio.create_task(stopped.carry_out(messages[1]))
        await came(lambda: stopped.context.permits["one"]._waiting)
        site.pass_time()
        site.upstream.meanwhile = None
        await other.carry_out(messages[1])
        hold.may_answer.set()
        await asyncio.wait_for(asyncio.gather(first, second), BOUND_S)
        assert site.upstream.calls == ["ok-0", "ok-1"]
        await site.drive()
        assert (site.result().succeeded, late(site)) == (["ok-0", "ok-1"], 0)
        site.assert_tidy()


async def test_a_line_that_is_cancelled_in_its_worker_is_free_for_another_at_once(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line("ok-0"))
        leaver, stayer = site.workers
        sending = await Hold(site.upstream).of(leaver, message)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        await leaver.context.desk.flush()
        site.upstream.meanwhile = None
        await stayer.carry_out(message)
        await site.drive()
        assert (site.upstream.calls, site.result().succeeded) == (["ok-0", "ok-0"], ["ok-0"])
        site.assert_tidy()


async def test_a_shard_whose_lines_are_being_sent_is_left_alone_by_the_sweep(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line("ok-0"))
        site.redis.delete("provider.one")
        hold = Hold(site.upstream)
        sending = await hold.of(site.workers[0], message)
        await site.sweep()
        assert site.messages() == []
        hold.may_answer.set()
        await sending
        assert [each.step for each in site.messages()] == [Step.SEAL]


async def test_a_suspect_is_sent_by_a_process_of_its_own_and_succeeds_if_it_is_innocent(sites: Sites) -> None:
    async with sites.new() as site:
        message, _ = await opened(site, line("ok-0"), line("ok-1"))
        await kill_senders(site, message, deaths=2)
        await site.drive()
        assert site.upstream.calls == ["ok-1"]  # the other one was answered by the simulated provider of the process
        assert site.result().succeeded == ["ok-0", "ok-1"]
        site.assert_tidy()


async def test_a_line_whose_workers_died_five_times_fails_without_being_sent(sites: Sites) -> None:
    async with sites.new() as site:
        message, _ = await opened(site, line("ok-0"), line("ok-1"))
        await kill_senders(site, message, deaths=5)
        await site.drive()
        assert (site.upstream.calls, site.result().unsuccessful) == (["ok-1"], [("ok-0", "worker_died")])
        site.assert_tidy()


async def test_a_line_of_a_silent_worker_is_taken_over_by_a_new_one_once_it_may_call_it_dead(sites: Sites) -> None:
    async with sites.new(claim_s=1) as site:
        [message] = await opened(site, line("ok-0"))
        await kill_senders(site, message, deaths=1)
        newcomer = await site.worker()
        newcomer.context.desk._contact = Contact()
        taking_over = asyncio.create_task(newcomer.carry_out(message))
        while not taking_over.done():
            await newcomer.context.desk.beat()
            await asyncio.wait([taking_over], timeout=0.05)
        assert (site.upstream.calls, site.record().recorded) == (["ok-0"], 1)


async def test_after_an_outage_of_redis_nobody_is_thought_dead_before_he_had_the_time_to_come_back(
    sites: Sites,
) -> None:
    async with sites.new(workers=2, claim_s=1) as site:
        [message] = await opened(site, line("ok-0"))
        sender, early = site.workers
        hold = Hold(site.upstream)
        sending = await hold.of(sender, message)
        site.pass_time()  # Redis was away: nobody could say that he lives
        early.context.desk._contact = Contact()
        await early.context.desk.beat()
        assert (await early.context.desk.missing(Shard(BATCH, "one", 0))).indices == []
        second = asyncio.create_task(early.carry_out(message))
        while not second.done():
            await sender.context.desk.beat()
            await asyncio.wait([second], timeout=0.05)
        hold.may_answer.set()
        await sending
        await site.drive()
        assert (site.upstream.calls, site.result().succeeded) == (["ok-0"], ["ok-0"])
        site.assert_tidy()
