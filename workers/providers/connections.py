"""The HTTP connections of one process to one provider: bytes out, bytes in. Not for what the bytes mean."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Final

import httpx2

from workers.providers.dial import Dialer
from workers.providers.head import header_lines
from workers.providers.http1 import Connection
from workers.providers.seam import ProviderError
from workers.providers.time_limits import TimeLimits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from batchord.routing import Provider
    from workers.providers.http1 import Answer

# Uvicorn, and so vLLM, closes an idle connection after 5 s: let go before that, or a request meets the closing.
_KEEPALIVE_S: Final = 4.0


class Connections:
    """A pool of kept-alive connections to one origin, at most `most_in_flight` of them; redirects are not followed.

    The connection used last is the next one used, so that those that are not needed end.
    """

    def __init__(self, config: Provider, base_url: httpx2.URL, headers: Mapping[str, str]) -> None:
        self._limits = TimeLimits(config.timeout_s, config.read_timeout_s)
        self._connect_timeout_s = config.connect_timeout_s
        self._host = base_url.raw_host.decode()
        self._tls = _tls() if base_url.scheme == "https" else None
        self._dialer = Dialer(self._host, base_url.port or (443 if self._tls else 80))
        self._header_lines = header_lines(config.name, base_url, headers)
        self._slots = asyncio.Semaphore(config.most_in_flight)
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def post(self, target: bytes, body: bytes, idempotency_key: str) -> Answer:
        """Send exactly these bytes once, to a path and query, and wait for the whole answer.

        Raises:
            ProviderError: no whole answer of bounded size came in time.
        """
        head = b"POST %b HTTP/1.1\r\n%bidempotency-key: %b\r\ncontent-length: %d\r\n\r\n" % (
            target,
            self._header_lines,
            idempotency_key.encode("ascii"),
            len(body),
        )
        return await self._ask(head, body)

    async def get(self, target: bytes) -> Answer:
        """Ask once, and wait for the whole answer.

        Raises:
            ProviderError: no whole answer of bounded size came in time.
        """
        return await self._ask(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, self._header_lines), b"")

    async def _ask(self, head: bytes, body: bytes) -> Answer:
        began_at = time.monotonic()
        if self._slots.locked():
            await self._wait_for_slot(began_at)
        else:
            await self._slots.acquire()
        try:
            connection = self._take_idle() or await self._connect(began_at)
            try:
                return await connection.ask(head, body, began_at)
            finally:
                self._put_back(connection)
        finally:
            self._slots.release()

    async def _wait_for_slot(self, began_at: float) -> None:
        try:
            async with asyncio.timeout(self._left_s(began_at)):
                await self._slots.acquire()
        except TimeoutError:
            raise self._limits.over() from None

    def _left_s(self, began_at: float) -> float:
        return began_at + self._limits.total_s - time.monotonic()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            is_young = time.monotonic() - connection.idle_since < _KEEPALIVE_S
            if is_young and connection.is_reusable and connection.is_silent():
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection) -> None:
        if not connection.is_reusable or self._is_closed:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(_KEEPALIVE_S / 4, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close what nobody used for a while, and forget what the server closed."""
        self._sweep = None
        oldest = time.monotonic() - _KEEPALIVE_S
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.is_reusable and connection.idle_since > oldest:
                self._idle.append(connection)
            else:
                connection.close()
        if self._idle:
            self._sweep_later()

    async def _connect(self, began_at: float) -> Connection:
        left_s = self._left_s(began_at)
        limit_s = min(left_s, self._connect_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._open_connection()
        except TimeoutError:
            if limit_s == left_s:
                raise self._limits.over() from None
            reason = f"it took no connection within {limit_s:g} s; if it needs longer, raise its connect_timeout_s."
            raise _unreachable(reason) from None
        except OSError as error:
            raise _unreachable(_words(error)) from error
        if self._is_closed:
            connection.close()
            raise _unreachable("this worker ends.")
        return connection

    async def _open_connection(self) -> Connection:
        connected = await self._dialer.dial()
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._limits, self._open),
                sock=connected,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    async def aclose(self) -> None:
        """Close the connections; a request under way fails, and so does one that comes."""
        self._is_closed = True
        self._dialer.close()
        if self._sweep:
            self._sweep.cancel()
        closing = list(self._open)
        for connection in closing:
            connection.close()
        await asyncio.gather(*(connection.lost.wait() for connection in closing))


def _unreachable(reason: str) -> ProviderError:
    return ProviderError("connection_error", f"The provider could not be reached: {reason}", is_unsent=True)


def _words(error: OSError) -> str:
    """Say what the system says, such as `connection refused`; a resolver and TLS have words of their own."""
    if type(error).__module__ == "builtins" and error.errno:
        return f"{os.strerror(error.errno).lower()}."
    if isinstance(error, socket.gaierror) and error.strerror:
        return f"{error.strerror.lower()}."
    return str(error) or type(error).__name__


def _tls() -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
