"""Lines sent from processes of their own: real ones, killed for real by what answers them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil
import pytest
import uvloop

from batchord.contract import Usage
from batchord.routing import Provider
from tests.upstream import Rule, Upstream
from workers.draining import Draining
from workers.providers import ProviderError, Request, Response
from workers.quarantine import PLACES, LineDied, Quarantine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _path_of_our_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as every worker has it


@contextlib.asynccontextmanager
async def opened(upstream: Upstream, idle_s: float = 30.0, **fields: object) -> AsyncIterator[Quarantine]:
    """A quarantine with one provider, `a`; whatever a test does to it, its end leaves no process."""
    quarantine = Quarantine({"a": Provider(name="a", base_url=upstream.url, **fields)}, idle_s=idle_s)  # type: ignore[arg-type]
    try:
        yield quarantine
    finally:
        groups = [leader.pid for leader in leaders()]
        await quarantine.aclose()
        assert leaders() == []
        await until(lambda: not any(map(members, groups)))


def line(text: str, endpoint: str = "/v1/chat/completions") -> Request:
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})
    return Request(endpoint, body, custom_id="id", attempt=1, idempotency_key=f"key-{text[:20]}")


def said(response: Response) -> str:
    return str(msgspec.json.decode(response.body)["choices"][0]["message"]["content"])


def leaders() -> list[psutil.Process]:
    """The processes that fork for lines, of this test."""
    children = psutil.Process().children()
    return [
        child for child in children if child.status() != psutil.STATUS_ZOMBIE and "workers.solitary" in words(child)
    ]


def members(group: int) -> list[psutil.Process]:
    """The processes of a group, its leader among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)  # a poll, not a pause


async def cancel(*tasks: asyncio.Task[Response]) -> None:
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}


async def test_a_line_is_answered_as_its_provider_answers_it(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="busy", status=503, headers={"retry-after": "7"})]
    async with opened(upstream, headers={"X-Team": "a"}) as quarantine:
        answer = await quarantine.send("a", line("how are you"))
        refusal = await quarantine.send("a", line("busy"))
    assert (answer.status_code, said(answer), answer.request_id) == (200, "how are you", "req_key-how are you")
    assert answer.usage == Usage(input_tokens=3, output_tokens=3, total_tokens=6)
    assert answer.latency_ms >= answer.ttfb_ms > 0
    assert (refusal.status_code, refusal.retry_after_s) == (503, 7.0)
    assert [seen.headers["x-team"] for seen in upstream.requests] == ["a", "a"]


async def test_a_provider_s_error_is_the_line_s_with_its_code_and_its_wait(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="error_in_success", headers={"retry-after": "7"})]
    async with opened(upstream) as quarantine:
        with pytest.raises(ProviderError, match="overloaded inside a success") as raised:
            await quarantine.send("a", line("x"))
    assert (raised.value.code, raised.value.retry_after_s) == ("provider_error", 7.0)


@pytest.mark.parametrize("fault", ["kill", "crash"])
async def test_a_line_that_kills_its_process_is_found_and_those_beside_it_are_answered(
    upstream: Upstream, fault: str
) -> None:
    upstream.latency_s = 0.3
    upstream.rules = [msgspec.convert({"match": "deadly", "fault": fault}, Rule)]
    async with opened(upstream) as quarantine:
        texts = [f"<{number}>" for number in range(8)]
        deadly = asyncio.create_task(quarantine.send("a", line("deadly")))
        answers = await asyncio.gather(*(quarantine.send("a", line(text)) for text in texts))
        with pytest.raises(LineDied):
            await deadly
    assert list(map(said, answers)) == texts
    assert upstream.count() == 9  # each was sent once


async def test_a_line_whose_process_hangs_past_its_time_is_ended_like_one_that_died(upstream: Upstream) -> None:
    config = Provider(name="a", base_url=upstream.url, timeout_s=600)
    upstream.rules = [Rule(fault="hang")]
    quarantine = Quarantine({"a": config}, grace_s=-599.8)
    with pytest.raises(LineDied):
        await quarantine.send("a", line("x"))
    await quarantine.aclose()


async def test_lines_are_sent_side_by_side(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="hang")]
    async with opened(upstream) as quarantine:
        sending = [asyncio.create_task(quarantine.send("a", line(str(number)))) for number in range(PLACES + 4)]
        await until(lambda: upstream.in_flight == PLACES)
        assert len(members(leaders()[0].pid)) == PLACES + 1
        await cancel(*sending)


async def test_lines_past_the_places_wait(upstream: Upstream) -> None:
    upstream.latency_s = 0.3
    async with opened(upstream) as quarantine:
        await asyncio.gather(*(quarantine.send("a", line(str(number))) for number in range(PLACES + 8)))
    assert upstream.max_in_flight <= PLACES
    assert upstream.count() == PLACES + 8


async def test_a_large_body_and_a_large_answer_arrive_byte_for_byte(upstream: Upstream) -> None:
    text = "ab" * 16_000_000
    async with opened(upstream) as quarantine:
        response = await quarantine.send("a", line(text, endpoint="/v1/echo"))
    echoed = msgspec.json.decode(response.body)["body"]
    assert echoed["messages"][0]["content"] == text


async def test_without_a_line_no_process_runs(upstream: Upstream) -> None:
    async with opened(upstream, idle_s=0.2) as quarantine:
        assert leaders() == []
        upstream.latency_s = 1.0  # a line outlasts the idle time
        await quarantine.send("a", line("x"))
        await until(lambda: leaders() == [])
        await quarantine.send("a", line("y"))
    assert upstream.count() == 2


async def test_other_configurations_hold_for_the_next_line_and_those_under_way_go_on(upstream: Upstream) -> None:
    upstream.latency_s = 0.5
    async with opened(upstream) as quarantine:
        before = asyncio.create_task(quarantine.send("a", line("x")))
        await until(lambda: upstream.in_flight == 1)
        quarantine.adopt({"b": Provider(name="b", base_url=f"{upstream.url}/new")})
        async with asyncio.timeout(PATIENCE_S):
            await quarantine.send("b", line("y"))
        assert said(await before) == "x"
    assert [seen.path for seen in upstream.requests] == ["/v1/chat/completions", "/v1/new/chat/completions"]


async def test_a_cancelled_line_is_cut_off(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="hang")]
    async with opened(upstream) as quarantine:
        sending = asyncio.create_task(quarantine.send("a", line("x")))
        await until(lambda: upstream.in_flight == 1)
        await cancel(sending)
        await until(lambda: upstream.in_flight == 0)
        await until(lambda: len(members(leaders()[0].pid)) == 1)


async def test_a_drain_lets_lines_finish_and_sends_no_more(upstream: Upstream) -> None:
    async with opened(upstream) as quarantine:
        sending = [asyncio.create_task(quarantine.send("a", line(str(number)))) for number in range(PLACES + 2)]
        await asyncio.sleep(0)  # each has run up to its first wait
        quarantine.drain()
        ends = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(end) for end in ends] == [Response] * PLACES + [Draining] * 2
    assert upstream.count() == PLACES


async def test_the_end_of_a_quarantine_condemns_no_line(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="hang")]
    async with opened(upstream) as quarantine:
        sending = asyncio.create_task(quarantine.send("a", line("x")))
        await until(lambda: upstream.in_flight == 1)
        await quarantine.aclose()
        with pytest.raises(Draining):
            await sending
        with pytest.raises(Draining):
            await quarantine.send("a", line("y"))


@pytest.mark.parametrize("interpreter", ["/nowhere/python", "false"])
async def test_a_line_without_a_process_waits_for_one(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    async with opened(upstream) as quarantine:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", interpreter)
            sending = asyncio.create_task(quarantine.send("a", line("x")))
            done, _ = await asyncio.wait({sending}, timeout=0.5)
            assert not done
        assert said(await sending) == "x"


async def test_the_death_of_the_forking_process_harms_no_line(upstream: Upstream) -> None:
    upstream.latency_s = 0.5
    async with opened(upstream) as quarantine:
        sending = asyncio.create_task(quarantine.send("a", line("x")))
        await until(lambda: upstream.in_flight == 1)
        leaders()[0].kill()
        await until(lambda: leaders() == [])
        assert said(await quarantine.send("a", line("y"))) == "y"
        assert said(await sending) == "x"


async def test_signals_to_end_are_left_to_the_worker(upstream: Upstream) -> None:
    upstream.latency_s = 0.5
    async with opened(upstream) as quarantine:
        sending = asyncio.create_task(quarantine.send("a", line("x")))
        await until(lambda: upstream.in_flight == 1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.killpg(leaders()[0].pid, number)
        assert said(await sending) == "x"


async def test_many_lines_leave_no_descriptor_behind(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="deadly", fault="kill")]
    async with opened(upstream) as quarantine:
        await quarantine.send("a", line("x"))
        before = psutil.Process().num_fds()
        sending = (quarantine.send("a", line(f"{number} {word}")) for number in range(10) for word in ("deadly", ""))
        await asyncio.gather(*sending, return_exceptions=True)
        await until(lambda: psutil.Process().num_fds() <= before)


def test_it_runs_on_uvloop_too(upstream: Upstream) -> None:
    upstream.rules = [Rule(match="deadly", fault="kill")]

    async def send_both() -> Response:
        async with opened(upstream) as quarantine:
            with pytest.raises(LineDied):
                await quarantine.send("a", line("deadly"))
            return await quarantine.send("a", line("x"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert said(runner.run(send_both())) == "x"


OWNER = """
import asyncio, sys
from batchord.routing import Provider
from workers.providers import Request
from workers.quarantine import Quarantine

async def main():
    quarantine = Quarantine({"a": Provider(name="a", base_url=sys.argv[1])})
    await asyncio.gather(*(quarantine.send("a", Request("/v1/x", b"{}", str(n), 1, str(n))) for n in range(3)))

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_worker(upstream: Upstream) -> None:
    upstream.rules = [Rule(fault="hang")]
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, upstream.url, cwd=ROOT)
    with contextlib.ExitStack() as undo:
        undo.callback(owner.kill)
        await until(lambda: upstream.in_flight == 3)
        left = psutil.Process(owner.pid).children(recursive=True)
        assert len(left) == 4
    await owner.wait()
    await until(lambda: not any(process.is_running() for process in left))
    await until(lambda: upstream.in_flight == 0)
