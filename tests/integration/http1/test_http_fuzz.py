from __future__ import annotations

import asyncio
import io
import random
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.http1.origin import Call, answer_to, opened, origin
from workers.providers import ProviderError
from workers.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.providers.connections import Connections

ROUNDS = 40


def chunked(body: bytes, rng: random.Random) -> bytes:
    chunks = b""
    while body:
        size = rng.randint(1, 20)
        chunks += b"%x\r\n%b\r\n" % (len(body[:size]), body[:size])
        body = body[size:]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks


def cut(answer: bytes, rng: random.Random) -> bytes:
    return answer[: rng.randrange(len(answer))]


def cut_out(answer: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.sample(range(len(answer) + 1), 2))
    return answer[:start] + answer[end:]


def repeated(answer: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.sample(range(len(answer) + 1), 2))
    return answer[:end] + answer[start:]


def twice(answer: bytes, _rng: random.Random) -> bytes:
    return answer * 2


def noise_behind(answer: bytes, rng: random.Random) -> bytes:
    return answer + rng.choice([rng.randbytes(rng.randint(1, 50)), b"\r\n", b"HTTP/1.1 ", answer[:-1]])


def noise_within(answer: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(answer))
    return answer[:at] + rng.randbytes(rng.randint(1, 9)) + answer[at:]


def wrong_bytes(answer: bytes, rng: random.Random) -> bytes:
    garbled = bytearray(answer)
    for _ in range(rng.randint(1, 3)):
        garbled[rng.randrange(len(garbled))] = rng.choice(b"0123456789:,\r\n \x00\xff")
    return bytes(garbled)


def untouched(answer: bytes, _rng: random.Random) -> bytes:
    return answer


FAULTS = [cut, cut_out, repeated, twice, noise_behind, noise_within, wrong_bytes, untouched]
WHOLE = [untouched, twice, noise_behind]
"""These leave the answer whole, so the server need not close to let the client know that no more comes."""


def read_by_another(answer: bytes) -> tuple[int, bytes] | None:
    """Give what the standard library's client reads, or None if it is no whole answer for it either."""

    class Socket:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(answer)

    response = HTTPResponse(Socket())  # type: ignore[arg-type]  # all it wants of a socket
    try:
        response.begin()
        return response.status, response.read()
    except (HTTPException, ValueError):
        return None


class Garbler:
    """Answers to the keys that begin with "bad" with faults, in pieces of any size; to all others as it should."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.fault: Callable[[bytes, random.Random], bytes] = untouched
        self.said = b""
        self.has_said_all = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        answer = self._rng.choice([call.whole(), chunked(answer_to(call.key), self._rng)])
        if call.key.startswith("bad"):
            answer = self.said = self.fault(answer, self._rng)
        try:
            await self._say(call.writer, answer)
            if call.key.startswith("bad") and (self.fault not in WHOLE or self._rng.random() < 0.5):
                call.writer.close()
        finally:
            self.has_said_all.set()

    async def _say(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        """Write in pieces of any size, until it is all said or the client has heard enough."""
        while answer and not writer.is_closing():
            size = self._rng.choice([1, 2, 5, 20, 100, 1000])
            writer.write(answer[:size])
            answer = answer[size:]
            await asyncio.sleep(0)


async def ask(connections: Connections, key: str) -> tuple[int, bytes] | ProviderError:
    try:
        answer = await connections.post(b"/v1/chat/completions", b"{}", key)
    except ProviderError as error:
        return error
    return answer.status_code, answer.body


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_comes_an_answer_is_right_or_an_error_and_the_next_one_is_right(seed: int) -> None:
    rng = random.Random(seed)
    garbler = Garbler(rng)
    taken: list[Any] = []
    async with origin(garbler) as server, opened(server.url, max_concurrency=1, timeout_s=20) as client:
        assert isinstance(client, OpenAIProvider)
        for number in range(ROUNDS):
            garbler.fault = FAULTS[number % len(FAULTS)]
            garbler.has_said_all.clear()
            answer = await ask(client._connections, f"bad-{number}")
            shown = f"{seed=} {number=} {garbler.fault.__name__} {garbler.said!r}"
            right = (200, answer_to(f"bad-{number}"))
            if garbler.fault in WHOLE:
                assert answer == right, shown
            elif not isinstance(answer, ProviderError):
                assert answer in (right, read_by_another(garbler.said)), shown
            else:
                assert answer.code in {"connection_error", "invalid_response"}, shown
            taken.append(answer)
            await asyncio.wait_for(garbler.has_said_all.wait(), 20)
            assert await ask(client._connections, f"good-{number}") == (200, answer_to(f"good-{number}")), shown
        assert len(client._connections._open) <= 1
    assert len({type(answer) for answer in taken}) == 2  # some were answers and some were errors
    assert client._connections._open == set()
