"""A server that answers byte for byte what a test says, on the test's own loop. Not one that knows HTTP's rules."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from batchord.routing import Provider
from workers.providers import ProviderClient, ProviderError, Request, open_provider

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

OVER = "The provider did not answer within {} s; if it needs longer, raise its timeout_s."


@dataclass
class Call:
    """One request as it came, and the way back to who sent it."""

    connection: int  # counted from 0
    head: bytes
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def key(self) -> str:
        return self.head.split(b"idempotency-key: ")[1].split(b"\r\n")[0].decode()

    def whole(self, *headers: bytes) -> bytes:
        """Give the usual answer, which says what was asked."""
        body = answer_to(self.key)
        lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Origin:
    """`answer` writes to `call.writer` what goes back; the connection stays open after it, unless it closes it."""

    answer: Callable[[Call], Awaitable[None]]
    url: str = ""
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: Counter[int] = field(default_factory=Counter)  # connections, by their number

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.writers)
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                self.calls.append(Call(number, head, await reader.readexactly(int(length or 0)), writer))
                await self.answer(self.calls[-1])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            self.ended[number] += 1

    @property
    def connections(self) -> list[int]:
        """The connection that each request came on."""
        return [call.connection for call in self.calls]


def answer_to(key: str) -> bytes:
    return json.dumps({"id": key, "choices": [{"index": 0, "text": f"the answer to {key}"}]}).encode()


async def usual(call: Call) -> None:
    call.writer.write(call.whole())


@asynccontextmanager
async def origin(
    answer: Callable[[Call], Awaitable[None]] = usual, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Origin]:
    serving: list[asyncio.Task[None]] = []
    made = Origin(answer)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(made.serve(reader, writer)))

    server = await asyncio.start_server(connected, host, 0, ssl=tls, backlog=1024)
    made.port = server.sockets[0].getsockname()[1]
    made.url = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{made.port}/v1"
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def opened(base_url: str, environ: dict[str, str] | None = None, **options: Any) -> AsyncIterator[ProviderClient]:
    client = open_provider(Provider(name="p", base_url=base_url, **options), environ or {})
    try:
        yield client
    finally:
        await client.aclose()


def line(key: str = "line-1", body: bytes = b'{"model":"m"}') -> Request:
    return Request("/v1/chat/completions", body, custom_id=key, attempt=1, idempotency_key=key)


async def sent(client: ProviderClient, key: str = "line-1") -> None:
    """Send a line, and see that its own answer came."""
    response = await client.send(line(key))
    assert (response.status_code, response.body) == (200, answer_to(key))


async def refusal(client: ProviderClient, request: Request) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await client.send(request)
    assert raised.value.message.startswith("The ")
    return raised.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (there is no event for it)
            await asyncio.sleep(0.002)
