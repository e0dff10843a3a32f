"""What happens to every request: an id, a log line, an answer even where the code fails, and bounds on its body.

Plain ASGI, so that bodies and answers stream through. Not for who asks, nor for what a route does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import time
from typing import Final

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import envelope, failure

_log = logging.getLogger(__name__)

_STREAMED: Final = re.compile(r"/v1/files|/v1/uploads/[^/]+/parts")
"""The paths whose POST reads its body bit by bit, and has bounds of its own."""
_TOO_LARGE: Final = "The request body is larger than {most} bytes, the most that this path takes."
_SILENT: Final = "Nothing more of the request body came for {silence_s} seconds."
_PROBES: Final = frozenset({"/healthz", "/readyz"})
"""What is asked every few seconds and, while all is well, says nothing new."""
_OK: Final = 200
_GONE: Final = 499
"""What the log says of a request whose client did not wait for the answer; nobody is sent it."""


class Traced:
    """Gives each request an id and a line in the log, and answers 500 to what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = _Trace(scope, send)
        try:
            await self._app(scope, receive, trace.send)
        except ClientDisconnect:
            trace.status_code = _GONE
        except Exception as error:
            answer = failure(error, trace.id)
            if trace.status_code:  # the answer has begun: only a broken connection tells the client
                raise
            await answer(scope, receive, trace.send)
        finally:
            trace.log()


class _Trace:
    """One request on its way; `status_code` is 0 until its answer begins."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self.id = f"req_{secrets.token_hex(16)}"
        self._began = time.monotonic()
        self.status_code = 0

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer, with our headers at its beginning."""
        if message["type"] == "http.response.start":
            self.status_code = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.id
            headers["openai-processing-ms"] = str(self._ms())
        await self._send(message)

    def log(self) -> None:
        """Write the request's line; the path as it was sent, so that nobody writes lines of their own."""
        path = self._scope["raw_path"].decode("ascii", "backslashreplace")
        level = logging.DEBUG if path in _PROBES and self.status_code == _OK else logging.INFO
        _log.log(
            level, "%s %s %s %d %d ms", self.id, self._scope["method"], path, self.status_code or _GONE, self._ms()
        )

    def _ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


class BoundedBody:
    """Bounds a body's size, where its path has no bounds of its own, and the silence between two pieces of it.

    A client whose machine has gone away would hold its connection, and the bytes that it has sent, for ever.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, silence_s: float = 60) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._silence_s = silence_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whose body is refused before it is read where its length is told."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most_bytes = math.inf if _STREAMED.fullmatch(scope["path"]) else self._most_bytes
        if _told_bytes(scope) > most_bytes:
            await envelope(413, self._too_large)(scope, receive, send)
        else:
            await self._app(scope, self._bounded(receive, most_bytes), send)

    def _bounded(self, receive: Receive, most_bytes: float) -> Receive:
        """Give a `receive` that refuses what goes past a bound; the routes' own handlers make that an answer."""
        size_bytes, is_whole = 0, False

        async def bounded() -> Message:
            nonlocal size_bytes, is_whole
            message = await (receive() if is_whole else self._soon(receive))
            size_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)  # then nothing comes but the client's leaving
            if size_bytes > most_bytes:
                raise HTTPException(413, self._too_large)
            return message

        return bounded

    async def _soon(self, receive: Receive) -> Message:
        try:
            async with asyncio.timeout(self._silence_s):
                return await receive()
        except TimeoutError:
            raise HTTPException(408, _SILENT.format(silence_s=self._silence_s)) from None

    @property
    def _too_large(self) -> str:
        return _TOO_LARGE.format(most=self._most_bytes)


def _told_bytes(scope: Scope) -> int:
    told = Headers(scope=scope).get("content-length", "")
    return int(told) if told.isdecimal() else 0
