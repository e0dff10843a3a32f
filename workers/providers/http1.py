"""One HTTP/1.1 connection: a request out, its whole answer in. Not for pools and names, nor for what answers mean."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from workers.providers.reader import AnswerReader
from workers.providers.seam import ProviderError

if TYPE_CHECKING:
    from workers.providers.time_limits import TimeLimits

_PIECE_BYTES: Final = 256 * 1024


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole HTTP answer, with its content coding undone; `headers` by lower-case names.

    `latency_ms` is from the sending to the last byte, `ttfb_ms` to the end of the headers.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    latency_ms: float
    ttfb_ms: float


Outcome: TypeAlias = Answer | ProviderError


class Connection(asyncio.Protocol):
    """A connection for one request at a time, each of which has the same limits to its time.

    It is in the set `among` for as long as it is open. Whoever uses it looks at `is_reusable` after each answer.
    """

    def __init__(self, limits: TimeLimits, among: set[Connection]) -> None:
        self.idle_since = 0.0
        self.lost = asyncio.Event()
        self._limits = limits
        self._among = among
        self._reader = AnswerReader()
        self._answered: asyncio.Future[Outcome] | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began_at = self._headed_at = self._moved_at = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer came whole, and the connection then stayed open, with nothing left to write."""
        transport = self._transport
        return self._reader.keeps_alive and not transport.is_closing() and not transport.get_write_buffer_size()

    def is_silent(self) -> bool:
        """Whether nothing has come, neither bytes nor an end, that the loop has not read yet."""
        return not self._arrivals.poll(0)

    async def ask(self, head: bytes, body: bytes, began_at: float) -> Answer:
        """Send one request, whose time began at `began_at` (monotonic), and wait for the whole answer.

        Raises:
            ProviderError: no whole answer of bounded size came in time.
        """
        if self._transport.is_closing():
            message = "The provider closed the connection before the request."
            raise ProviderError("connection_error", message, is_unsent=True)
        loop = asyncio.get_running_loop()
        self._reader.begin()
        answered: asyncio.Future[Outcome] = loop.create_future()
        self._answered = answered
        self._began_at, self._headed_at = began_at, 0.0
        self._moved_at = now = time.monotonic()
        self._timer = loop.call_later(self._limits.next_at(began_at, now) - now, self._look_at_time)
        try:
            if len(body) <= _PIECE_BYTES:
                self._transport.write(head + body)
            else:
                await self._write_in_pieces(head, memoryview(body), answered)
            outcome = await answered
        finally:
            self._timer.cancel()
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome

    async def _write_in_pieces(self, head: bytes, body: memoryview, answered: asyncio.Future[Outcome]) -> None:
        """Write no faster than the server reads; an answer that comes before the end of it all ends the writing."""
        self._transport.write(head)
        for start in range(0, len(body), _PIECE_BYTES):
            while self._resumed and not answered.done():
                await asyncio.wait((self._resumed, answered), return_when=asyncio.FIRST_COMPLETED)
            if answered.done():
                self._reader.keeps_alive = False
                return
            self._transport.write(body[start : start + _PIECE_BYTES])
            self._moved_at = time.monotonic()

    def _look_at_time(self) -> None:
        """Break off if a limit is reached; look again when the next one can be, if something moved meanwhile."""
        now = time.monotonic()
        error = self._limits.reached(self._began_at, self._moved_at, now)
        if error:
            self._break(error)
        else:
            after_s = self._limits.next_at(self._began_at, self._moved_at) - now
            self._timer = asyncio.get_running_loop().call_later(after_s, self._look_at_time)

    def _break(self, error: ProviderError) -> None:
        self._finish(error)
        self.close()

    def _finish(self, outcome: Outcome) -> None:
        answered, self._answered = self._answered, None
        if answered and not answered.done():
            answered.set_result(outcome)

    def _finish_whole(self) -> None:
        reader, now = self._reader, time.monotonic()
        body = reader.body()
        latency_ms, ttfb_ms = (now - self._began_at) * 1000, (self._headed_at - self._began_at) * 1000
        self._finish(Answer(reader.status_code, reader.headers, body, latency_ms, ttfb_ms))

    def close(self) -> None:
        """Close at once; a request under way fails."""
        self._reader.keeps_alive = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._arrivals = select.poll()
        self._arrivals.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._among.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on; bytes that nobody asked for could be taken for the next answer, so they end the connection."""
        if self._answered is None:
            self.close()
            return
        try:
            self._reader.feed(data)
            self._moved_at = time.monotonic()
            if self._reader.is_headed and not self._headed_at:
                self._headed_at = self._moved_at
            if self._reader.is_whole:
                self._finish_whole()
        except ProviderError as error:
            self._break(error)

    def eof_received(self) -> None:
        """Take what came as all there is; the transport closes itself then."""
        self._end("")

    def connection_lost(self, error: Exception | None) -> None:
        """Leave nobody waiting."""
        self._end(str(error) if error else "")
        self.resume_writing()
        self._among.discard(self)
        self.lost.set()

    def _end(self, reason: str) -> None:
        if self._answered is None:
            return
        try:
            self._reader.end(reason)
            self._finish_whole()
        except ProviderError as error:
            self._break(error)

    def pause_writing(self) -> None:
        """Have the writing wait: the server is slow to read."""
        self._resumed = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Have the writing go on."""
        resumed, self._resumed = self._resumed, None
        if resumed and not resumed.done():
            resumed.set_result(None)
