"""The process that forks once for each line under suspicion, so that what kills its process kills no other line's.

It is started by `workers.quarantine`, which hands it one socket a line: the order goes in, the reply comes out. A fork
costs milliseconds where a start costs half a second. Not for claims or records: it knows neither Celery nor Redis.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from batchord.routing import Provider
from workers.providers import ProviderError, Request, Response, open_provider
from workers.providers.seam import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workers.providers import ProviderClient

READY: Final = b"+"
"""What comes before the reply: the process is there, and from now on whatever ends it is the line's doing."""
_LENGTH_BYTES: Final = 8


class Order(msgspec.Struct, frozen=True, array_like=True):
    """What to send, and the name of the provider."""

    provider: str
    request: Request


Reply: TypeAlias = Response | tuple[ErrorCode, str, float | None, bool]
"""An answer, or what a `ProviderError` is made of."""

_CONFIGS: Final = msgspec.msgpack.Decoder(list[str])
_ORDERS: Final = msgspec.msgpack.Decoder(Order)
_REPLIES: Final = msgspec.msgpack.Decoder(Reply)


def encode_providers(configs: Iterable[Provider]) -> bytes:
    """Give what goes through the control socket first: the providers as the owner knows them."""
    return _framed([config.model_dump_json(exclude_unset=True) for config in configs])


def encode_order(order: Order) -> bytes:
    """Give an order as it goes through a line's socket."""
    return _framed(order)


def _framed(content: object) -> bytes:
    encoded = msgspec.msgpack.encode(content)
    return len(encoded).to_bytes(_LENGTH_BYTES) + encoded


def _read(given: socket.socket) -> bytes:
    size_bytes = int.from_bytes(given.recv(_LENGTH_BYTES, socket.MSG_WAITALL))
    return given.recv(size_bytes, socket.MSG_WAITALL)


def decode_reply(said: bytes) -> Response:
    """Read all that came out of a socket from `READY` on.

    Raises:
        ProviderError: the provider gave no answer to keep.
        msgspec.DecodeError: the reply is not whole.
    """
    reply: Reply = _REPLIES.decode(memoryview(said)[len(READY) :])
    if isinstance(reply, tuple):
        raise ProviderError(*reply[:3], is_unsent=reply[3])
    return reply


def main(control_fd: int, idle_s: float, grace_s: float) -> None:
    """Fork for each socket that comes, until the owner is gone or nothing has run for `idle_s`.

    A line's process may live `grace_s` past its provider's time limit, should it hang.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the owner, which drains while lines go on here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the lines' processes
    with socket.socket(fileno=control_fd) as control:
        configs = map(Provider.model_validate_json, _CONFIGS.decode(_read(control)))
        opened = {config.name: (config, open_provider(config, os.environ)) for config in configs}
        control.settimeout(idle_s)
        gc.freeze()  # a collection in a forked process would touch, and so copy, what it shares
        while (line := _next(control)) is not None:
            with line:
                if _is_forked():
                    control.close()
                    _serve(opened, line, grace_s)
                    os._exit(0)
    os.killpg(0, signal.SIGKILL)  # this process, and lines that do not notice that the owner is gone


def _next(control: socket.socket) -> socket.socket | None:
    while True:
        try:
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
            return socket.socket(fileno=fds[0]) if fds else None
        except TimeoutError:
            if not _has_children():
                return None


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _is_forked() -> bool:
    try:
        return os.fork() == 0
    except OSError as error:  # the owner sees the socket close before it said READY, and tries again
        sys.stderr.write(f"A line's process could not be forked: {error}\n")
        return False


def _serve(opened: Mapping[str, tuple[Provider, ProviderClient]], line: socket.socket, grace_s: float) -> None:
    order = _ORDERS.decode(_read(line))
    config, client = opened[order.provider]
    signal.setitimer(signal.ITIMER_REAL, config.timeout_s + grace_s)  # ends even what no longer runs any Python
    threading.Thread(target=_end_with_owner, args=(line,), daemon=True).start()
    asyncio.run(_answer(client, line, order.request))


def _end_with_owner(line: socket.socket) -> None:
    with suppress(ConnectionError):
        line.recv(1)  # nothing more is ever written: it returns when the owner is gone, or wants the line no more
    os.kill(os.getpid(), signal.SIGKILL)


async def _answer(client: ProviderClient, line: socket.socket, request: Request) -> None:
    line.sendall(READY)
    reply = await _send(client, request)
    line.sendall(msgspec.msgpack.encode(reply))
    line.shutdown(socket.SHUT_WR)


async def _send(client: ProviderClient, request: Request) -> Reply:
    try:
        return await client.send(request)
    except ProviderError as error:
        return error.code, error.message, error.retry_after_s, error.is_unsent


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(float, sys.argv[2:]))
