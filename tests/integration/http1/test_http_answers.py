from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import pytest

from tests.integration.http1.origin import Call, line, opened, origin, refusal, sent, usual
from workers.providers import reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BODY = b'{"id":"x","choices":[1]}'
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def first(answer: bytes, *, closes: bool = False) -> Callable[[Call], Awaitable[None]]:
    """Answer these bytes to the first request, and as usual from then on."""

    async def script(call: Call) -> None:
        if call.key != "first":
            await usual(call)
            return
        call.writer.write(answer)
        if closes:
            call.writer.close()

    return script


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


def coded(coding: bytes, body: bytes) -> bytes:
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body


WHOLE = {
    "a length": (OK + LENGTH + b"\r\n" + BODY, True),
    "headers in any case": (b"HTTP/1.1 200 \r\ncOnTeNt-lEnGtH:%d\r\n\r\n" % len(BODY) + BODY, True),
    "chunks": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=1\r\n" + BODY[:2] + b"\r\n16\r\n" + BODY[2:] + b"\r\n0\r\n\r\n",
        True,
    ),
    "chunks and trailers": (
        OK
        + b"Transfer-Encoding: chunked\r\n\r\n18\r\n"
        + BODY
        + b"\r\n0\r\nRetry-After: 9\r\nX-Request-Id: no\r\n\r\n",
        True,
    ),
    "informational answers before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX-Request-Id: no\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
        True,
    ),
    "a connection to be closed": (OK + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY, False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY, False),
    "HTTP/1.0 that keeps alive": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\n" + BODY, True),
    "more bytes than announced": (OK + LENGTH + b"\r\n" + BODY + b"!", False),
    "another answer behind it": (
        OK + LENGTH + b"\r\n" + BODY + b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
        False,
    ),
    "gzip": (coded(b"gzip", gzip.compress(BODY)), True),
    "x-gzip": (coded(b"X-GZIP", gzip.compress(BODY)), True),
    "deflate": (coded(b"deflate", zlib.compress(BODY)), True),
    "deflate without zlib's header": (coded(b"deflate", raw_deflate(BODY)), True),
    "no coding by name": (coded(b"identity", BODY), True),
}


@pytest.mark.parametrize(("answer", "is_kept"), WHOLE.values(), ids=WHOLE)
async def test_a_whole_answer_is_taken_and_its_connection_kept_if_it_can_be(answer: bytes, is_kept: bool) -> None:
    async with origin(first(answer)) as server, opened(server.url) as client:
        response = await client.send(line("first"))
        assert (response.status_code, response.body, response.request_id) == (200, BODY, "x")
        assert response.retry_after_s is None
        await sent(client)
    assert server.connections == [0, 0 if is_kept else 1]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_without_a_length_the_end_of_the_connection_is_the_end_of_the_answer(version: bytes) -> None:
    answer = b"HTTP/%b 200 OK\r\n\r\n" % version + BODY
    async with origin(first(answer, closes=True)) as server, opened(server.url) as client:
        assert (await client.send(line("first"))).body == BODY
        await sent(client)


@pytest.mark.parametrize("status", [204, 304])
async def test_some_statuses_have_no_body(status: int) -> None:
    answer = b"HTTP/1.1 %d Nothing\r\nRetry-After: 3\r\n\r\n" % status
    async with origin(first(answer)) as server, opened(server.url) as client:
        if status == 304:
            assert (await client.send(line("first"))).status_code == 304
        else:
            assert "empty body" in (await refusal(client, line("first"))).message
        await sent(client)
    assert server.connections == [0, 0]


BROKEN = {
    "nothing": (b"", "connection_error", "closed without an answer"),
    "half of the headers": (OK + b"Content-Le", "connection_error", "closed without an answer"),
    "only an informational answer": (b"HTTP/1.1 100 Continue\r\n\r\n", "connection_error", "closed without an answer"),
    "no body": (OK + LENGTH + b"\r\n", "invalid_response", "cut short"),
    "half of the body": (OK + LENGTH + b"\r\n" + BODY[:9], "invalid_response", "cut short"),
    "half of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n18\r\n{", "invalid_response", "cut short"),
    "no last chunk": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n18\r\n" + BODY + b"\r\n",
        "invalid_response",
        "cut short",
    ),
    "half of gzip": (coded(b"gzip", gzip.compress(BODY)[:-9]), "invalid_response", "cut short or garbled"),
    "something behind gzip": (coded(b"gzip", gzip.compress(BODY) + b"{}"), "invalid_response", "cut short or garbled"),
    "no gzip": (coded(b"gzip", BODY), "invalid_response", "cut short or garbled"),
    "an unknown coding": (coded(b"br", BODY), "invalid_response", "content coding is 'br'"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid_response", "is not HTTP"),
    "an unknown HTTP": (b"HTTP/7.0 200 OK\r\n\r\n", "invalid_response", "is not HTTP"),
    "an upgrade": (
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
        "invalid_response",
        "is not HTTP",
    ),
    "two lengths": (OK + LENGTH + b"Content-Length: 1\r\n\r\n" + BODY, "invalid_response", "is not HTTP"),
    "a length and chunks": (
        OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n18\r\n" + BODY + b"\r\n0\r\n\r\n",
        "invalid_response",
        "is not HTTP",
    ),
    "a length below zero": (OK + b"Content-Length: -1\r\n\r\n" + BODY, "invalid_response", "is not HTTP"),
    "a chunk of no size": (OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", "invalid_response", "garbled"),
    "headers without end": (
        OK + b"X: y\r\n" * 40_000,
        "invalid_response",
        "headers of the provider's answer are larger",
    ),
    "one header without end": (OK + b"X: " + b"y" * 300_000, "invalid_response", "larger than 131072 bytes"),
    "informational answers without end": (b"HTTP/1.1 102 P\r\n\r\n" * 20_000, "invalid_response", "are larger"),
}


@pytest.mark.parametrize(("answer", "code", "words"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_says_how_it_is_broken_and_the_next_one_is_right(
    answer: bytes, code: str, words: str
) -> None:
    async with origin(first(answer, closes=True)) as server, opened(server.url, max_concurrency=1) as client:
        error = await refusal(client, line("first"))
        assert (error.code, words in error.message) == (code, True), error.message
        await sent(client)
    assert server.connections == [0, 1]


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 100001\r\n\r\n" + b" " * 100_001,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n%b\r\n" % (b" " * 0x4000) * 20,
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 400_000,
        OK + b"\r\n" + b" " * 400_000,
        coded(b"gzip", gzip.compress(b" " * 100_001)),
        coded(b"deflate", zlib.compress(b" " * 50_000_000)),
    ],
    ids=["a length", "chunks", "a trailer", "until the end", "gzip", "a bomb"],
)
async def test_no_answer_past_the_limit_is_taken_in_any_form(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_ANSWER_BYTES", 100_000)
    async with origin(first(answer, closes=True)) as server, opened(server.url) as client:
        error = await refusal(client, line("first"))
        assert error.message == "The provider's answer is larger than 100000 bytes."
        await sent(client)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_answer_of_many_small_writes_is_put_together(size: int) -> None:
    body = b'{"choices":["%b"]}' % (b"0123456789" * 500)

    async def script(call: Call) -> None:
        answer = OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        for start in range(0, len(answer), size):
            call.writer.write(answer[start : start + size])
            await call.writer.drain()

    async with origin(script) as server, opened(server.url) as client:
        assert (await client.send(line())).body == body


async def test_an_answer_of_many_megabytes_is_read_whole() -> None:
    body = b'{"choices":["%b"]}' % (b"x" * 20_000_000)
    async with (
        origin(first(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)) as server,
        opened(server.url) as client,
    ):
        assert (await client.send(line("first"))).body == body
