"""Requests of the same body in one batch: one is sent, all are answered, whatever happens to the one."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import produced_file_id
from batchord.lifecycle import Status
from batchord.state import analytics
from batchord.storage import paths
from tests.integration.api import open_api
from tests.integration.retries import retry_all
from tests.integration.steps import BATCH, BOUND_S, ENDPOINT, Site, Sites, came, line
from tests.integration.steps_trouble import (
    dies_and_is_lost,
    dies_and_is_redelivered,
    each_moment,
    is_cancelled,
    is_overtaken,
    redis_fails,
)

if TYPE_CHECKING:
    from tests.integration.steps_trouble import Trouble
    from tests.integration.steps_worker import Message
    from workers.providers import Request

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site carries messages out in any order, one by one: a copy before its original waits for nothing."""
    monkeypatch.setattr("workers.copies._PATIENCE_S", 0.02)


def ask(custom_id: str, question: str = "?", provider: str = "one", **body: Any) -> dict[str, Any]:
    return line(custom_id, provider, **{"temperature": 0, "text": question, **body})


async def in_order(site: Site) -> None:
    """Carry all out, the lines in the input's order."""
    while waiting := site.messages():
        for message in waiting:
            site.redis.lrem(message.queue, -1, message.raw)
            await asyncio.wait_for(site.carry_out(message), BOUND_S)


async def carried_out(site: Site, *lines: dict[str, Any], **terms: Any) -> list[str]:
    """Give the custom_ids that were sent of a batch."""
    site.submit(lines, **terms)
    await in_order(site)
    assert site.record().batch.status is Status.COMPLETED
    site.assert_tidy()
    return site.upstream.calls


def responses(site: Site) -> dict[str, Any]:
    """Give the answer to each custom_id, without what it cost, which is nothing for a copy."""
    result = site.result()
    told = map(json.loads, [*(result.output or b"").splitlines(), *(result.errors or b"").splitlines()])
    return {each["custom_id"]: {**each["response"], "cost": None} for each in told}


def duplicates(site: Site) -> int:
    tallies = site.client.state.run(analytics.read(BATCH))
    return sum(tally.counts["duplicates"] for tally in tallies.values())


async def test_equal_requests_are_sent_once_and_all_answered_under_their_own_names(sites: Sites) -> None:
    async with sites.new(shard_lines=100, window_lines=200) as site:
        lines = [ask(f"ok-{number}", f"question {number % 10}") for number in range(200)]
        sent = await carried_out(site, *lines)
        assert sent == [f"ok-{number}" for number in range(10)]
        result = site.result()
        assert result.succeeded == [f"ok-{number}" for number in range(200)]
        assert len({json.loads(raw)["id"] for raw in (result.output or b"").splitlines()}) == 200
        answered = responses(site)
        assert all(answered[f"ok-{number}"] == answered[f"ok-{number % 10}"] for number in range(200))
        assert (result.counts["completed"], result.counts["tokens"]) == (200, 10 * 5)
        assert duplicates(site) == 190


async def test_a_copy_takes_the_answer_of_a_shard_that_is_sealed(sites: Sites) -> None:
    async with sites.new(shard_lines=2, window_lines=2) as site:
        kinds = ["ok", "large", "bad"]
        lines = [ask(f"{kind}-{number}", kind) for number in range(4) for kind in kinds]
        assert await carried_out(site, *lines) == ["ok-0", "large-0", "bad-0"]
        answered = responses(site)
        assert all(answered[f"{kind}-{number}"] == answered[f"{kind}-0"] for number in range(4) for kind in kinds)
        assert (site.result().counts["failed"], duplicates(site)) == (4, 9)


async def test_the_attempts_say_whose_answer_a_copy_has(sites: Sites) -> None:
    async with sites.new() as site:
        await carried_out(site, line("ok-0"), ask("ok-1"), ask("ok-2"))
        path = paths.file(produced_file_id(BATCH, "attempts", 0))
        traces = [json.loads(raw) for raw in b"".join(site.client.blobs.stream(path)).splitlines()]
        assert [trace.get("copy_of") for trace in traces] == [None, None, 2]
        assert [len(trace["attempts"]) for trace in traces] == [1, 1, 0]


@pytest.mark.parametrize(
    ("dedupe", "temperature", "sent"),
    [(None, 0, 1), (None, 0.0, 1), (None, 0.5, 2), (None, None, 2), (True, 0.5, 1), (True, None, 1), (False, 0, 2)],
)
async def test_the_temperature_decides_unless_the_batch_does(
    sites: Sites, dedupe: bool | None, temperature: float | None, sent: int
) -> None:
    async with sites.new() as site:
        lines = [ask(f"ok-{number}", temperature=temperature) for number in range(2)]
        assert len(await carried_out(site, *lines, dedupe=dedupe)) == sent


@pytest.mark.parametrize("other", [ask("ok-1", "??"), ask("ok-1", provider="two"), ask("ok-1", provider="one:one")])
async def test_another_body_or_provider_is_another_request(sites: Sites, other: dict[str, Any]) -> None:
    async with sites.new() as site:
        assert len(await carried_out(site, ask("ok-0"), other)) == 2


async def test_where_no_answer_came_each_line_is_sent(sites: Sites) -> None:
    async with sites.new() as site:
        sent = await carried_out(site, *(ask(f"broken-{number}") for number in range(3)))
        assert sent == ["broken-0", "broken-1", "broken-2"]
        assert duplicates(site) == 0


async def opened(site: Site, *lines: dict[str, Any]) -> list[Message]:
    """Have a batch planned and fed, and give the messages of its lines."""
    site.submit(lines)
    await site.carry_out(await site.until(Step.PLAN))
    return site.messages("provider.one")


async def test_copies_wait_while_their_original_is_under_way_without_a_permit(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.line._ASK_AGAIN_S", 0.01)
    async with sites.new() as site:
        begun, may_answer = asyncio.Event(), asyncio.Event()

        async def meanwhile(_request: Request) -> None:
            begun.set()
            await may_answer.wait()

        site.upstream.meanwhile = meanwhile
        first, *copies = await opened(site, *(ask(f"ok-{number}") for number in range(3)))
        original = asyncio.create_task(site.carry_out(first))
        await begun.wait()
        waiting = [asyncio.create_task(site.carry_out(copy)) for copy in copies]
        permits = site.workers[0].context.permits["one"]
        await came(lambda: len(site.workers[0].context.watches._under_way) == 1)
        assert permits.held == 1
        may_answer.set()
        await asyncio.gather(original, *waiting)
        assert site.upstream.calls == ["ok-0"]


async def test_a_copy_before_its_original_does_not_wait_for_ever(sites: Sites) -> None:
    async with sites.new() as site:
        first, copy = await opened(site, ask("ok-0"), ask("ok-1"))
        await site.carry_out(copy)
        assert site.upstream.calls == ["ok-1"]
        await site.carry_out(first)
        assert site.upstream.calls == ["ok-1", "ok-0"]


async def test_a_copy_that_waits_goes_back_when_its_worker_drains(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.copies._PATIENCE_S", BOUND_S)
    async with sites.new() as site:
        _, copy = await opened(site, ask("ok-0"), ask("ok-1"))
        context = site.workers[0].context
        before = len(site.messages("provider.one"))
        waiting = asyncio.create_task(site.carry_out(copy))
        await came(lambda: context.watches._under_way)
        context.drain()
        await asyncio.wait_for(waiting, BOUND_S)
        assert len(site.messages("provider.one")) == before + 1
        assert site.upstream.calls == []


async def test_a_cancel_ends_the_wait_of_a_copy(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.copies._PATIENCE_S", BOUND_S)
    monkeypatch.setattr("workers.line._ASK_AGAIN_S", 0.01)
    async with sites.new() as site:
        _, copy = await opened(site, ask("ok-0"), ask("ok-1"))
        waiting = asyncio.create_task(site.carry_out(copy))
        await came(lambda: site.workers[0].context.watches._under_way)
        site.cancel()
        await asyncio.wait_for(waiting, BOUND_S)
        await site.drive()
        assert site.upstream.calls == []
        assert [code for _, code in site.result().unsuccessful] == ["batch_cancelled"] * 2


async def executing_a_copy(site: Site) -> Message:
    await site.carry_out(await site.until(Step.PLAN))
    first, copy = site.messages("provider.one")
    for message in (first, copy):
        site.redis.lrem(message.queue, 1, message.raw)
    await site.carry_out(first)
    return copy


@pytest.mark.parametrize(
    "trouble", [dies_and_is_redelivered, dies_and_is_lost, redis_fails, is_overtaken, is_cancelled]
)
async def test_trouble_after_any_write_of_a_copy_sends_nothing_more(sites: Sites, trouble: Trouble) -> None:
    def check(site: Site) -> None:
        assert site.upstream.calls == ["ok-0"]
        assert site.result().counts["completed"] == 2 or trouble is is_cancelled
        site.assert_tidy()

    await each_moment(sites, executing_a_copy, trouble, check, [ask("ok-0"), ask("ok-1")])


async def test_a_retry_asks_once_again_for_lines_that_failed_together(sites: Sites) -> None:
    async with sites.new(shard_lines=2, window_lines=2) as site:
        assert await carried_out(site, *(ask(f"bad-{number}") for number in range(5))) == ["bad-0"]
        assert site.result().counts["failed"] == 5
        site.upstream.healed = True
        await retry_all(site)
        await in_order(site)
        assert site.upstream.calls == ["bad-0", "bad-0"]
        assert site.result().counts["completed"] == 5
        site.assert_tidy()


async def test_a_client_may_ask_for_it_and_is_told_what_it_saved(sites: Sites) -> None:
    async with sites.new() as site, open_api(site.settings.redis_url, site.settings.data_dir) as api:
        wanted = {"requests": [ask(f"ok-{number}", temperature=1) for number in range(3)], "endpoint": ENDPOINT}
        answer = await api.post("/v1/batches", json={**wanted, "completion_window": "24h", "dedupe": True})
        assert answer.json()["dedupe"] is True
        await in_order(site)
        assert site.upstream.calls == ["ok-0"]
        path = f"/v1/batches/{answer.json()['id']}/analytics"
        total = (await api.get(path)).json()["total"]
        assert (total["requests"], total["duplicates"], total["total_tokens"]) == (3, 2, 5)


async def test_a_batch_that_says_nothing_of_duplicates_does_not_show_it(sites: Sites) -> None:
    async with sites.new() as site, open_api(site.settings.redis_url, site.settings.data_dir) as api:
        wanted = {"requests": [ask("ok-0")], "endpoint": ENDPOINT, "completion_window": "24h"}
        assert "dedupe" not in (await api.post("/v1/batches", json=wanted)).json()
        refused = await api.post("/v1/batches", json={**wanted, "dedupe": "yes"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dedupe")


async def test_copies_are_published_after_all_lines_that_have_to_be_sent(sites: Sites) -> None:
    async with sites.new(shard_lines=10) as site:
        messages = await opened(site, *(ask(f"ok-{number}", f"question {number // 2}") for number in range(6)))
        assert [message.args[-1] for message in messages] == [0, 2, 4, 1, 3, 5]
