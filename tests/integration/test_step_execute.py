"""The step execute: a line gets one outcome, and is sent once, unless its worker died while it was being sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import produced_file_id
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Status
from batchord.state import keys
from batchord.state.conditions import ProviderCondition
from batchord.storage import paths
from tests.integration.steps import BATCH, BOUND_S, Site, Sites, came, line, mixed_lines
from tests.integration.steps_trouble import (
    Trouble,
    dies_and_is_lost,
    dies_and_is_redelivered,
    each_moment,
    is_overtaken,
    redis_fails,
    undisturbed,
)
from tests.integration.steps_worker import Died, Message, Upstream, Worker
from workers.shares import take_shares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from workers.providers import Request


pytestmark = pytest.mark.timeout(120)


TROUBLES = [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken]


async def executing(site: Site) -> Message:
    return await site.until(Step.EXECUTE)


async def opened(site: Site, *lines: dict[str, Any]) -> list[Message]:
    """Have a batch planned and fed, and give the messages of its lines."""
    site.submit(lines)
    await site.carry_out(await site.until(Step.PLAN))
    return site.messages("provider.one")


class Hold:
    """Keeps an upstream from answering until it is told to; `begun` says that a request is there."""

    def __init__(self, upstream: Upstream) -> None:
        self.begun, self.may_answer = asyncio.Event(), asyncio.Event()
        upstream.meanwhile = self._meanwhile

    async def _meanwhile(self, _request: Request) -> None:
        self.begun.set()
        await self.may_answer.wait()

    async def of(self, worker: Worker, message: Message) -> asyncio.Task[None]:
        """Have a worker carry a message out as far as the upstream."""
        self.begun.clear()
        task = asyncio.create_task(worker.carry_out(message))
        await asyncio.wait_for(self.begun.wait(), BOUND_S)
        return task


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble_after_any_write_changes_nothing(sites: Sites, trouble: Trouble) -> None:
    expected = await undisturbed(sites, mixed_lines())

    def check(site: Site) -> None:
        assert site.result() == expected
        resent = Counter(site.upstream.calls) - Counter(line["custom_id"] for line in mixed_lines())
        assert resent.total() <= (trouble is not redis_fails)  # the answer was there, and its record was not
        site.assert_tidy()

    await each_moment(sites, executing, trouble, check)


async def test_a_worker_that_dies_while_it_sends_has_the_line_sent_again_and_counted_once(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line("ok-0"))

        async def die(_request: Request) -> None:
            await site.workers[0].die()

        site.upstream.meanwhile = die
        with suppress(Died):
            await site.workers[0].carry_out(message)
        site.upstream.meanwhile = None
        await site.carry_out(message)
        await site.sweep()
        assert site.upstream.calls == ["ok-0"]  # the claim of the dead worker still holds
        site.pass_time()
        await site.drive()
        assert site.upstream.calls == ["ok-0", "ok-0"]
        assert (site.result().succeeded, site.result().counts["completed"]) == (["ok-0"], 1)
        site.assert_tidy()


async def test_a_line_for_a_provider_that_is_given_up_fails_without_a_wait(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.line._ASK_AGAIN_S", 10 * BOUND_S)
    async with sites.new(give_up_after_s=60) as site:
        [message] = await opened(site, line("ok-0"))
        now = time.time()
        trouble = ProviderCondition("one", now, failing_since=now - 90, open_until=now + 600, reason="no answer")
        site.workers[0].context.conditions["one"].hear(trouble)
        await asyncio.wait_for(site.carry_out(message), BOUND_S)
        await site.drive()
        assert (site.upstream.calls, site.result().unsuccessful) == ([], [("ok-0", "provider_unavailable")])


async def test_a_message_delivered_many_times_at_once_is_sent_once(sites: Sites) -> None:
    async with sites.new(workers=3) as site:
        [message] = await opened(site, line("ok-0"))
        await asyncio.gather(*(worker.carry_out(message) for worker in site.workers * 3))
        assert site.upstream.calls == ["ok-0"]
        await site.drive()
        assert site.result().counts["completed"] == 1
        site.assert_tidy()


async def test_a_line_that_a_living_worker_sends_is_sent_by_nobody_else(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line("ok-0"))
        hold = Hold(site.upstream)
        sending = await hold.of(site.workers[0], message)
        site.pass_time()
        await site.workers[0].context.desk.beat()
        for worker in site.workers:
            await worker.carry_out(message)
        await site.sweep()
        hold.may_answer.set()
        await sending
        await site.drive()
        assert (site.upstream.calls, site.result().succeeded) == (["ok-0"], ["ok-0"])
        site.assert_tidy()


@pytest.mark.parametrize("kind", ["ok", pytest.param("large")])
async def test_a_record_that_comes_after_the_end_changes_nothing(sites: Sites, kind: str) -> None:
    async with sites.new(workers=2) as site:
        [message] = await opened(site, line(f"{kind}-0"))
        hold = Hold(site.upstream)
        sending = await hold.of(site.workers[0], message)
        site.pass_time()
        site.upstream.meanwhile = None
        await site.workers[1].carry_out(message)
        await site.drive()
        ended = site.result()
        hold.may_answer.set()
        await sending
        await site.drive()
        assert (site.result(), ended.counts["completed"]) == (ended, 1)
        site.assert_tidy()


async def test_of_two_outcomes_of_a_line_the_first_stays_and_is_the_one_that_counts(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        message, _ = await opened(site, line("ok-0"), line("ok-1"))
        begun, may_fail = asyncio.Event(), asyncio.Event()

        async def fail_late(_request: Request) -> None:
            begun.set()
            await may_fail.wait()
            raise ValueError("nobody foresaw this, and it comes late")

        site.upstream.meanwhile = fail_late
        late = asyncio.create_task(site.workers[0].carry_out(message))
        await asyncio.wait_for(begun.wait(), BOUND_S)
        site.pass_time()
        site.upstream.meanwhile = None
        await site.workers[1].carry_out(message)
        may_fail.set()
        await late
        await site.drive()
        assert (site.result().succeeded, site.result().unsuccessful) == (["ok-0", "ok-1"], [])
        assert (site.result().counts["completed"], site.result().counts["failed"]) == (2, 0)
        site.assert_tidy()


async def test_a_line_that_has_its_record_is_not_sent(sites: Sites) -> None:
    async with sites.new(workers=2) as site:
        message, *_ = await opened(site, line("ok-0"), line("ok-1"))
        for worker in site.workers:
            await worker.carry_out(message)
        assert site.upstream.calls == ["ok-0"]
        await site.drive()
        await site.carry_out(message)
        assert sorted(site.upstream.calls) == ["ok-0", "ok-1"]
        assert site.result().counts["completed"] == 2
        site.assert_tidy()


@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [(Site.cancel, Status.CANCELLED, "batch_cancelled"), (Site.pass_deadline, Status.EXPIRED, "batch_expired")],
)
async def test_a_line_of_a_batch_that_was_stopped_is_not_sent(
    sites: Sites, stop: Callable[[Site], object], status: Status, code: str
) -> None:
    async with sites.new() as site:
        await opened(site, line("ok-0"), line("ok-1"))
        stop(site)
        await site.drive()
        assert (site.upstream.calls, site.result().status) == ([], status)
        assert site.result().unsuccessful == [("ok-0", code), ("ok-1", code)]
        site.assert_tidy()


@pytest.mark.parametrize("stop", [Site.cancel, Site.pass_deadline])
async def test_a_line_that_waits_for_its_permit_when_its_batch_is_stopped_is_not_sent(
    sites: Sites, stop: Callable[[Site], object]
) -> None:
    async with sites.new() as site:
        messages = await opened(site, line("ok-0"), line("ok-1"))
        site.workers[0].context.resize("one", 1)
        site.workers[0].context.desk.verdict_life_s = 0
        hold = Hold(site.upstream)
        first = await hold.of(site.workers[0], messages[0])
        second = asyncio.create_task(site.workers[0].carry_out(messages[1]))
        await came(lambda: site.workers[0].context.permits["one"]._waiting)
        stop(site)
        hold.may_answer.set()
        await asyncio.gather(first, second)
        assert site.upstream.calls == ["ok-0"]


async def test_a_line_that_waits_for_its_next_attempt_when_its_batch_is_cancelled_is_not_sent_again(
    sites: Sites,
) -> None:
    async with sites.new() as site:
        [message] = await opened(site, line("flaky-0"))

        async def cancel(_request: Request) -> None:
            site.cancel()

        site.upstream.meanwhile = cancel
        await site.carry_out(message)
        await site.drive()
        assert (site.upstream.calls, site.result().unsuccessful) == (["flaky-0"], [("flaky-0", "batch_cancelled")])
        site.assert_tidy()


async def test_a_failure_that_passes_is_tried_again_and_counted_once(sites: Sites) -> None:
    async with sites.new() as site:
        [message] = await opened(site, line("flaky-0"))
        await site.carry_out(message)
        await site.drive()
        assert (site.upstream.calls, site.result().succeeded) == (["flaky-0", "flaky-0"], ["flaky-0"])
        assert site.record().retries == 1


async def first_drains(site: Site) -> None:
    site.workers[0].context.drain()


async def first_loses_its_part_of_the_limit(site: Site) -> None:
    """The parts are forgotten in an outage of more than a claim, and may all be another's, for good, after it."""
    site.redis.delete(keys.SHARES)
    for context in [worker.context for worker in reversed(site.workers)]:
        limited = context.routes.every["one"].model_copy(update={"max_concurrency": 1})
        context.routes.every["one"] = limited
        await take_shares(context)


@pytest.mark.parametrize("event", [first_drains, first_loses_its_part_of_the_limit])
async def test_a_worker_that_may_send_no_more_hands_its_waiting_lines_to_another_at_once(
    sites: Sites, event: Callable[[Site], Awaitable[None]]
) -> None:
    async with sites.new(workers=2) as site:
        messages = await opened(site, line("ok-0"), line("ok-1"))
        site.redis.delete("provider.one")
        leaver, stayer = site.workers
        leaver.context.resize("one", 1)
        hold = Hold(site.upstream)
        first = await hold.of(leaver, messages[0])
        second = asyncio.create_task(leaver.carry_out(messages[1]))
        await came(lambda: leaver.context.permits["one"]._waiting)
        await event(site)
        await asyncio.wait_for(second, BOUND_S)
        site.upstream.meanwhile = None
        [handed_back] = site.messages("provider.one")
        await stayer.carry_out(handed_back)
        hold.may_answer.set()
        await first
        assert site.upstream.calls == ["ok-0", "ok-1"]
        await site.drive()
        assert site.result().succeeded == ["ok-0", "ok-1"]
        site.assert_tidy()


async def test_a_claim_made_after_an_outage_holds(sites: Sites) -> None:
    async with sites.new() as site:
        [message] = await opened(site, line("ok-0"))

        away = await site.worker()

        async def outage(number: int) -> None:
            if number == 1:
                site.pass_time()
                raise StateUnavailableError("Away for longer than a claim holds, as asked for.")

        away.after_write = outage
        hold = Hold(site.upstream)
        sending = await hold.of(away, message)
        site.upstream.meanwhile = None
        await site.carry_out(message)
        hold.may_answer.set()
        await sending
        assert site.upstream.calls == ["ok-0"]


async def test_an_error_that_nobody_foresaw_is_the_outcome_of_its_line(sites: Sites) -> None:
    async with sites.new() as site:

        async def stumble(_request: Request) -> None:
            raise ValueError("nobody foresaw this")

        site.upstream.meanwhile = stumble
        site.submit([line("ok-0")])
        await site.drive()
        assert (site.result().status, len(site.result().unsuccessful)) == (Status.COMPLETED, 1)
        assert (site.upstream.calls, site.failures) == (["ok-0"], [])


async def test_each_request_of_a_line_is_told_with_when_its_first_byte_came(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line("ok-0"), line("broken-1")])
        await site.drive()
        path = paths.file(produced_file_id(BATCH, "attempts"))
        told = [json.loads(each)["attempts"] for each in b"".join(site.client.blobs.stream(path)).splitlines()]
    assert [[(attempt["result"], attempt["ttfb_ms"]) for attempt in attempts] for attempts in told] == [
        [(200, 0.5)],
        [("invalid_response", None), ("invalid_response", None)],
    ]
