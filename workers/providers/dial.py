"""The way to a server: its name's addresses, kept briefly, and a socket to the first that takes it. Not for TLS."""

from __future__ import annotations

import asyncio
import socket
import time
from itertools import chain, zip_longest
from typing import Any, Final, TypeAlias

Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]  # a family's own way to say where

_ADDRESSES_KEPT_S: Final = 10.0
_HEAD_START_S: Final = 0.25  # RFC 8305, section 5
# A call may be silent for minutes; what lies between must neither forget it, nor hide that the server is gone.
_PROBES: Final = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
    if hasattr(socket, name)  # macOS has it from Python 3.14 on under this name
]


class Dialer:
    """Opens connections to one host and port; at most one look-up of the name runs at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lookup: asyncio.Task[list[Address] | OSError] | None = None
        self._kept_until = 0.0

    async def dial(self) -> socket.socket:
        """Give a connected socket.

        Raises:
            OSError: the name has no address, or none of them takes a connection.
        """
        addresses = await self._addresses()
        try:
            return await dial_first(addresses)
        except OSError:
            self._kept_until = 0.0
            raise

    async def _addresses(self) -> list[Address]:
        if self._lookup is None or (self._lookup.done() and time.monotonic() >= self._kept_until):
            self._lookup = asyncio.create_task(self._look_up())
        found = await asyncio.shield(self._lookup)  # others wait for it too
        if isinstance(found, OSError):
            raise found
        return found

    async def _look_up(self) -> list[Address] | OSError:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            return error
        except UnicodeError as error:
            return OSError(f"{self._host!r} is no name of a host: {error}")
        except asyncio.CancelledError:  # by `close`: those who wait were not cancelled
            return OSError("the look-up of its name was given up")
        self._kept_until = time.monotonic() + _ADDRESSES_KEPT_S
        return _families_in_turn([(family, address) for family, _, _, _, address in found])

    def close(self) -> None:
        """Stop looking up."""
        if self._lookup:
            self._lookup.cancel()


def _families_in_turn(addresses: list[Address]) -> list[Address]:
    """Order as RFC 8305 wants it, section 4: if one family leads nowhere, the other one is next."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    other = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for address in chain.from_iterable(zip_longest(first, other)) if address]


async def dial_first(addresses: list[Address]) -> socket.socket:
    """Connect to the first address that answers ("happy eyeballs"): each gets a head start before the next one.

    Raises:
        OSError: none of them takes a connection; it says what the first to fail said.
    """
    if len(addresses) == 1:
        return await _dial(addresses[0])
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        for address in addresses:
            attempts.add(asyncio.create_task(_dial(address)))
            if connected := await _first_of(attempts, errors, _HEAD_START_S):
                return connected
        while attempts:
            if connected := await _first_of(attempts, errors, None):
                return connected
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_drop)
    raise errors[0]


async def _first_of(
    attempts: set[asyncio.Task[socket.socket]], errors: list[BaseException], limit_s: float | None
) -> socket.socket | None:
    """Wait for one of them to end; those looked at are taken out, and leave their error or are the answer."""
    ended, _ = await asyncio.wait(attempts, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for attempt in ended:
        attempts.remove(attempt)
        error = attempt.exception()
        if error is None:
            return attempt.result()
        errors.append(error)
    return None


def _drop(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _dial(address: Address) -> socket.socket:
    family, where = address
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
        await asyncio.get_running_loop().sock_connect(connected, where)
    except BaseException:
        connected.close()
        raise
    return connected
