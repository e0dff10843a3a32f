"""How the tests' upstream sends an answer: whole, or with the fault that a rule names. Not for what the answer says."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from typing import TYPE_CHECKING

import msgspec
import psutil
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.upstream import Fault, Rule


async def send(request: web.Request, body: bytes, rule: Rule) -> web.StreamResponse:
    """Send an answer as its rule has it."""
    return await _FAULTS.get(rule.fault, _whole)(request, body, rule)


def json_answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def error_body(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "upstream_error", "param": None, "code": None}})


def _headers(request: web.Request, rule: Rule) -> dict[str, str]:
    return {"x-request-id": f"req_{request.headers.get('idempotency-key', 'upstream')}", **rule.headers}


async def _whole(request: web.Request, body: bytes, rule: Rule) -> web.StreamResponse:
    match rule.fault:
        case "truncated":
            body = body[: len(body) // 2]
        case "error_in_success":
            body = error_body("overloaded inside a success")
        case "html":
            body = b"<html><body><h1>Bad Gateway</h1></body></html>"
        case "pretty":
            body = msgspec.json.format(body, indent=2)
        case "huge":
            body = b'{"object":"huge","text":"' + b"x" * rule.size_bytes + b'"}'
    answer = json_answer(body, rule.status, _headers(request, rule))
    answer.content_type = "text/html" if rule.fault == "html" else "application/json"
    if rule.fault == "gzip":
        answer.enable_compression(web.ContentCoding.gzip)
    return answer


async def _hang(_request: web.Request, _body: bytes, _rule: Rule) -> web.StreamResponse:
    await asyncio.Event().wait()  # until the client goes away, or the server stops
    raise AssertionError


async def _reset(request: web.Request, _body: bytes, _rule: Rule) -> web.StreamResponse:
    transport = _transport(request)
    # Lingering for 0 s makes closing a TCP reset.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return web.Response()


async def _not_http(request: web.Request, body: bytes, _rule: Rule) -> web.StreamResponse:
    _transport(request).write(b"this is not HTTP\r\n\r\n" + body)
    _transport(request).close()
    return web.Response()


async def _streamed(request: web.Request, body: bytes, rule: Rule) -> web.StreamResponse:
    """Send the body in pieces: the half of it and no more, or all of it slowly."""
    answer = web.StreamResponse(status=rule.status, headers=_headers(request, rule))
    answer.content_type = "application/json"
    if rule.fault != "cut_chunked":
        answer.content_length = len(body)
    await answer.prepare(request)
    if rule.fault == "slow":
        for byte in body:
            await answer.write(bytes([byte]))
            await asyncio.sleep(rule.latency_s / len(body))
    else:
        await answer.write(body[: len(body) // 2])
        _transport(request).close()
    return answer


async def _kill(request: web.Request, body: bytes, rule: Rule) -> web.StreamResponse:
    """End the process at the other end of the connection."""
    transport = _transport(request)
    asking, own = transport.get_extra_info("peername")[1], transport.get_extra_info("sockname")[1]
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.raddr and (connection.laddr.port, connection.raddr.port) == (asking, own):
            os.kill(connection.pid or 0, signal.SIGKILL if rule.fault == "kill" else signal.SIGSEGV)
    return await _hang(request, body, rule)


def _transport(request: web.Request) -> asyncio.WriteTransport:
    assert isinstance(request.transport, asyncio.WriteTransport)
    return request.transport


# What is not here is a whole answer of HTTP.
_FAULTS: dict[Fault | None, Callable[[web.Request, bytes, Rule], Awaitable[web.StreamResponse]]] = {
    "cut": _streamed,
    "cut_chunked": _streamed,
    "crash": _kill,
    "hang": _hang,
    "kill": _kill,
    "not_http": _not_http,
    "reset": _reset,
    "slow": _streamed,
}
