from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.integration.http1.origin import OVER, Call, line, opened, origin, refusal, sent, usual

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SILENT = "The provider was silent for 0.2 s; if it needs longer, raise its read_timeout_s."


async def _never(_call: Call) -> None:
    await asyncio.Event().wait()


async def _half(call: Call) -> None:
    call.writer.write(call.whole()[:-5])
    await _never(call)


async def _in_parts(call: Call) -> None:
    """Take 1.2 s, and never 0.2 s between two parts."""
    whole = call.whole()
    length = len(whole) // 11
    for start in range(0, len(whole), length):
        call.writer.write(whole[start : start + length])
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("answer", [_never, _half])
async def test_a_silence_is_ended_by_the_read_timeout_which_is_named(
    answer: Callable[[Call], Awaitable[None]],
) -> None:
    async with origin(answer) as server, opened(server.url, read_timeout_s=0.2) as client:
        error = await refusal(client, line())
    assert (error.code, error.message, error.is_unsent) == ("request_timeout", SILENT, False)


async def test_an_answer_that_keeps_coming_is_no_silence() -> None:
    async with origin(_in_parts) as server, opened(server.url, read_timeout_s=1.0) as client:
        await sent(client)
    assert len(server.calls) == 1


async def test_the_total_time_ends_what_is_never_silent() -> None:
    async with origin(_in_parts) as server, opened(server.url, read_timeout_s=0.3, timeout_s=0.25) as client:
        error = await refusal(client, line())
    assert (error.code, error.message) == ("request_timeout", OVER.format("0.25"))


async def test_without_a_read_timeout_only_the_total_time_counts() -> None:
    async with origin(_half) as server, opened(server.url, timeout_s=0.3) as client:
        error = await refusal(client, line())
    assert error.message == OVER.format("0.3")


async def test_a_silence_is_counted_for_each_request_anew() -> None:
    async def late(call: Call) -> None:
        await asyncio.sleep(0.4)
        await usual(call)

    async with origin(late) as server, opened(server.url, read_timeout_s=1.0) as client:
        for n in range(3):
            await sent(client, f"line-{n}")
    assert server.connections == [0, 0, 0]


async def test_a_body_that_nobody_takes_is_a_silence() -> None:
    body = b'{"model":"m","input":"%b"}' % (b"x" * 16_000_000)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        async with opened(f"http://127.0.0.1:{listening.getsockname()[1]}", read_timeout_s=0.2) as client:
            error = await refusal(client, line(body=body))
    assert (error.code, error.message) == ("request_timeout", SILENT)
