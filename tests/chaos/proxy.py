"""TCP proxies of one thread that misbehave on request, between a worker and Redis or its provider. Not a server.

with Proxies(seed) as proxies:
    proxy = proxies.open("127.0.0.1", 8000)     # or a path, for a server on a Unix socket
    proxy.mode = "stall"                        # from any thread, at any moment; then connect to proxy.port
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from typing import Literal, Self

Mode = Literal[
    "pass",
    "refuse",  # resets every connection, old and new
    "stall",  # connections stay, but no byte passes
    "delay",  # each piece waits for up to DELAY_S
    "cut",  # of one answer in CUT_ONE_IN only the beginning passes, then the connection is reset
    "answer_twice",  # HTTP only: each answer comes twice, in one piece
    "ask_twice",  # HTTP only: each request is sent once more on a connection of its own, marked; its answer is dropped
]
DELAY_S = 0.2
CUT_ONE_IN = 20
AGAIN = b" /again"
"""How the path begins of a request that the proxy sends on its own account."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PIECE_BYTES = 65_536


class Proxies:
    """The thread of the proxies; a context manager."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = asyncio.new_event_loop()
        self._all: list[Proxy] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        for proxy in self._all:
            asyncio.run_coroutine_threadsafe(proxy.aclose(), self.loop).result(timeout=10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()

    def open(self, host_or_path: str, port: int | None = None) -> Proxy:
        """Open a way to a server: of HTTP at a host and port, of anything at a Unix socket."""
        proxy = Proxy(self, host_or_path, port)
        asyncio.run_coroutine_threadsafe(proxy.listen(), self.loop).result(timeout=10)
        self._all.append(proxy)
        return proxy


class Proxy:
    """One way to one server; `hurt` counts the connections and answers that it has spoilt."""

    def __init__(self, proxies: Proxies, host_or_path: str, port: int | None) -> None:
        self._proxies = proxies
        self._target = host_or_path, port
        self._mode: Mode = "pass"
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0
        self.hurt = 0

    @property
    def mode(self) -> Mode:
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        asyncio.run_coroutine_threadsafe(self._change(mode), self._proxies.loop).result(timeout=10)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        (self._flows.clear if mode == "stall" else self._flows.set)()
        if mode == "refuse":
            for connection in self._open:
                connection.cancel()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        self._server.close()
        open_now = list(self._open)
        for connection in open_now:
            connection.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self._mode != "refuse":
                await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            self.hurt += 1
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both directions until either ends."""
        there, back = await self._connect()
        try:
            async with asyncio.TaskGroup() as ways:
                asks = ways.create_task(self._carry_asked(reader, back))
                answers = ways.create_task(self._carry_answers(there, writer))
                await asyncio.wait([asks, answers], return_when=asyncio.FIRST_COMPLETED)
                asks.cancel()
                answers.cancel()
        except* (OSError, asyncio.IncompleteReadError) as errors:
            raise ConnectionResetError from errors
        finally:
            back.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host_or_path, port = self._target
        if port is None:
            return await asyncio.open_unix_connection(host_or_path)
        return await asyncio.open_connection(host_or_path, port)

    async def _carry_asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await self._piece(reader):
            if self._mode == "ask_twice":
                await self._ask_again(piece)
            await _send(writer, piece)

    async def _carry_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance = self._proxies.random
        while piece := await self._piece(reader):
            if self._mode == "cut" and chance.randrange(CUT_ONE_IN) == 0:
                await _send(writer, piece[: chance.randrange(len(piece))])
                raise ConnectionResetError
            if self._mode == "answer_twice":
                self.hurt += 1
                piece *= 2
            await _send(writer, piece)

    async def _piece(self, reader: asyncio.StreamReader) -> bytes:
        """Give what comes next, once it may pass: a whole message of HTTP, or some bytes; nothing at the end."""
        _, port = self._target
        piece = await (reader.read(_PIECE_BYTES) if port is None else _message(reader))
        if self._mode == "delay":
            await asyncio.sleep(self._proxies.random.uniform(0, DELAY_S))
        await self._flows.wait()
        return piece

    async def _ask_again(self, request: bytes) -> None:
        reader, writer = await self._connect()
        try:
            await _send(writer, request.replace(b" ", AGAIN, 1))
            await _message(reader)
        finally:
            writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(piece)
    await writer.drain()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one request or answer of HTTP whose length is announced; nothing at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")
