"""Lines under suspicion: each is sent from a process of its own, so that whatever kills its process is found for sure.

Not for who is under suspicion: Redis counts the workers that died while they sent a line.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.errors import BatchordError, UnavailableError
from batchord.processes import kill_group
from workers.draining import Draining
from workers.patience import patiently
from workers.solitary import Order, decode_reply, encode_order, encode_providers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batchord.routing import Provider
    from workers.providers import Request, Response

PLACES: Final = 16
"""How many lines are sent at once; each costs a process of some megabytes."""
_CHUNK_BYTES: Final = 1024 * 1024


class LineDied(BatchordError):  # noqa: N818 (no fault, but an answer)
    """The process that was sending this line, and nothing else, died."""


class _NotStartedError(UnavailableError):
    """There was no process for a line, so nothing was sent."""


class Quarantine:
    """Sends lines, each from a process of its own, at most `PLACES` at once.

    Nothing runs before the first line, nor `idle_s` after the last one. A process that hangs is ended `grace_s` past
    its provider's time limit, which counts as its death. No process outlives the one that made this.
    For one event loop; to be closed after the last line.
    """

    def __init__(self, providers: Mapping[str, Provider], idle_s: float = 30.0, grace_s: float = 60.0) -> None:
        self._providers = providers
        self._limits_s = (idle_s, grace_s)
        self._places = asyncio.Semaphore(PLACES)
        self._solitary: _Solitary | None = None
        self._former: list[_Solitary] = []
        self._is_draining = False
        self._is_closed = False

    async def send(self, provider: str, request: Request) -> Response:
        """Send one request once; waits for a place, and for as long as no process can be made.

        Raises:
            ProviderError: there is no answer to keep.
            LineDied: the process of this line died.
            Draining: the worker ends before the line was sent.
        """
        order = encode_order(Order(provider, request))
        async with self._places:
            if self._is_draining:
                raise Draining
            return await patiently(lambda: self._send_alone(order))

    def adopt(self, providers: Mapping[str, Provider]) -> None:
        """Send by other configurations from now on; a process that knows the former ones ends after its lines."""
        self._providers = providers
        if self._solitary is not None:
            self._former = [former for former in (*self._former, self._solitary) if not former.has_ended]
            self._solitary = None

    def drain(self) -> None:
        """Send no more lines; those that have a place go on."""
        self._is_draining = True

    async def aclose(self) -> None:
        """End every process; a line that is still under way meets `Draining`."""
        self._is_draining = self._is_closed = True
        for solitary in (*self._former, *filter(None, [self._solitary])):
            await solitary.aclose()

    async def _send_alone(self, order: bytes) -> Response:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._hand_over(theirs)
            ours.settimeout(0)
            said = await _exchange(ours, order)
        try:
            return decode_reply(said)
        except msgspec.DecodeError:
            raise self._reason(said) from None

    def _hand_over(self, line: socket.socket) -> None:
        if self._is_closed:
            raise Draining
        try:
            if self._solitary is None or self._solitary.has_ended:
                self._solitary = _Solitary(self._providers.values(), self._limits_s)
            self._solitary.hand_over(line)
        except OSError as error:
            raise _NotStartedError(f"A process for a line under suspicion could not be made: {error}.") from error

    def _reason(self, said: bytes) -> BatchordError:
        """Say why there is no whole reply."""
        if self._is_closed:
            return Draining()
        if not said:
            return _NotStartedError("A line under suspicion got no process of its own.")
        return LineDied("The process that was sending this line, and nothing else, died.")


class _Solitary:
    """The process of `workers.solitary`, in one group with what it forks, and the socket that it listens to."""

    def __init__(self, providers: Iterable[Provider], limits_s: Iterable[float]) -> None:
        with ExitStack() as undo:
            self._control, theirs = socket.socketpair()
            undo.enter_context(self._control)
            with theirs:
                argv = [sys.executable, "-m", "workers.solitary", str(theirs.fileno()), *map(str, limits_s)]
                self._process = subprocess.Popen(  # noqa: S603 (the project's own module)
                    argv, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0
                )
            undo.callback(kill_group, self._process)
            self._control.sendall(encode_providers(providers))
            undo.pop_all()
        asyncio.get_running_loop().add_reader(self._control, self._reap)

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more lines."""
        return self._process.returncode is not None

    def hand_over(self, line: socket.socket) -> None:
        """Have a line served at the other end of its socket."""
        socket.send_fds(self._control, [b"\0"], [line.fileno()])

    async def aclose(self) -> None:
        """Kill it, and what it has forked."""
        await asyncio.to_thread(kill_group, self._process)
        self._reap()

    def _reap(self) -> None:
        """Let go of it; its end of the socket is closed by its death alone."""
        if self._control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._process.wait()


async def _exchange(line: socket.socket, order: bytes) -> bytes:
    """Give all that is said in reply to an order; nothing where nobody took it."""
    loop = asyncio.get_running_loop()
    chunks: list[bytes] = []
    with suppress(ConnectionError):
        await loop.sock_sendall(line, order)
        while chunk := await loop.sock_recv(line, _CHUNK_BYTES):
            chunks.append(chunk)
    return b"".join(chunks)
