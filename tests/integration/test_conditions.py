"""Several workers and one Valkey: what one of them sees of a provider, all of them know."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import redis

from batchord.contract import NO_USAGE
from batchord.embedded import EmbeddedValkey
from batchord.routing import Provider
from batchord.state import conditions, reports
from batchord.state.connection import State
from workers import listening
from workers.condition import Condition
from workers.listening import keep_conditions
from workers.providers.seam import ProviderError, Response
from workers.reporting import Tally, keep_reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from batchord.state.reports import ProviderView, Report

BOUND_S = 20
WORKERS = 4
REFUSED = ProviderError("connection_error", "The provider could not be reached: connection refused")


def response(status_code: int, retry_after_s: float | None = None) -> Response:
    return Response(status_code, b"{}", "", NO_USAGE, retry_after_s, 1, 1)


@dataclass
class Worker:
    """A worker's view of the provider `p`, with connections of its own."""

    name: str
    state: State
    condition: Condition


@asynccontextmanager
async def running(url: str, count: int = WORKERS) -> AsyncIterator[list[Worker]]:
    """Workers that listen."""
    async with AsyncExitStack() as stack:
        workers = []
        for number in range(count):
            state = State(url, timeout_s=2)
            stack.push_async_callback(state.aclose)
            condition = Condition(Provider(name="p", kind="simulated"), f"w{number}", state.run, None)
            listener = asyncio.create_task(keep_conditions({"p": condition}, state))
            stack.push_async_callback(ended, listener)
            workers.append(Worker(f"w{number}", state, condition))
        await until(lambda: listeners(url) == count)
        yield workers


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.01)


def listeners(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return len(client.client_list(_type="pubsub"))


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker is not told, it does not see."""
    monkeypatch.setattr(listening, "_LOOK_S", 3_600)


@pytest.mark.usefixtures("no_looks")
async def test_a_pause_that_one_worker_meets_holds_for_all_at_once_and_ends_for_all(valkey: EmbeddedValkey) -> None:
    async with running(valkey.url) as workers:
        workers[0].condition.tell(response(429, 0.5), time.monotonic())
        await until(lambda: not any(worker.condition.is_clear for worker in workers))
        async with asyncio.timeout(BOUND_S):
            assert not any(await asyncio.gather(*(worker.condition.clear() for worker in workers)))


@pytest.mark.usefixtures("no_looks")
async def test_a_worker_whose_connection_broke_reads_what_it_has_missed(valkey: EmbeddedValkey) -> None:
    async with running(valkey.url, 1) as (worker,):
        with redis.Redis.from_url(valkey.url) as client:
            client.client_kill_filter(_type="pubsub")
        await worker.state.run(conditions.paused("p", 0, 60, reason="HTTP 429", is_well=True))
        await until(lambda: not worker.condition.is_clear)


async def test_what_no_message_told_is_seen_all_the_same(valkey: EmbeddedValkey) -> None:
    async with running(valkey.url, 1) as (worker,):
        await worker.state.run(conditions.paused("p", 0, 0.1, reason="HTTP 429", is_well=True))
        await until(lambda: not worker.condition.is_clear)
        await until(lambda: worker.condition.is_clear)
        with redis.Redis.from_url(valkey.url) as client:
            client.hset("batchord:condition:p", "pause_until", time.time() + 60)
        await until(lambda: not worker.condition.is_clear)


async def test_failures_of_several_workers_open_the_circuit_and_one_line_of_the_fleet_probes(
    valkey: EmbeddedValkey,
) -> None:
    async with running(valkey.url) as workers:
        conditions = [worker.condition for worker in workers]
        async with asyncio.timeout(BOUND_S):
            while any(condition.is_clear for condition in conditions):
                for condition in conditions:
                    condition.tell(REFUSED, time.monotonic())
                await asyncio.sleep(0.05)
        lines = {asyncio.create_task(condition.clear()): condition for condition in conditions for _ in range(20)}
        done, _ = await asyncio.wait(lines, timeout=BOUND_S, return_when=asyncio.FIRST_COMPLETED)
        (probe,) = done
        assert probe.result() is True
        lines[probe].tell(REFUSED, time.monotonic())
        done, waiting = await asyncio.wait(lines.keys() - {probe}, timeout=BOUND_S, return_when="FIRST_COMPLETED")
        (second,) = done
        assert second.result() is True
        lines[second].tell(response(200), time.monotonic())
        async with asyncio.timeout(BOUND_S):
            assert not any(await asyncio.gather(*waiting))


async def test_without_a_redis_workers_go_on_by_what_they_know_and_catch_up_later(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    with server:
        url = server.url
        stack = AsyncExitStack()
        workers = await stack.enter_async_context(running(url, 2))
    async with stack:
        workers[0].condition.tell(response(429, 60), time.monotonic())
        assert not workers[0].condition.is_clear
        assert await workers[1].condition.clear() is False
        with EmbeddedValkey(tmp_path) as again:
            assert again.url == url
            await until(lambda: not workers[1].condition.is_clear)


async def test_what_workers_report_is_read_in_sum_and_ends_with_them(valkey: EmbeddedValkey) -> None:
    state = State(valkey.url)
    reporters = {}
    for name in ("a", "b"):
        tally = Tally()
        tally.began()
        reporters[name] = asyncio.create_task(keep_reports(reporting(tally, name), state))
    view = await view_of(state, workers=2)
    assert (view.in_flight, view.waiting, view.permits, view.sent) == (2, 4, 16, 2)
    await ended(reporters["a"])
    await state.run_all(reports.leave("a", ["p"]))
    view = await view_of(state, workers=1)
    assert [report.worker for report in view.reports] == ["b"]
    await ended(reporters["b"])
    await state.aclose()


def reporting(tally: Tally, worker: str) -> Callable[[], Mapping[str, Report]]:
    return lambda: {"p": tally.report(worker, waiting=2, permits=8)}


async def view_of(state: State, workers: int) -> ProviderView:
    """Give how the provider is once so many workers report."""
    async with asyncio.timeout(BOUND_S):
        while (view := (await state.run(reports.read("p")))[0]).workers != workers:  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.01)
    return view
