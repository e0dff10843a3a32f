"""The HTTP connections of one process to one provider: bytes out, bytes in. Not for what the bytes mean."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

import aiohttp
import httpx2
from httpx_aiohttp.httpx2 import AiohttpTransport

from workers.providers.seam import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.routing import Provider

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_OWN_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "gzip",  # said here, since aiohttp would offer what it can decode, and it is httpx that decodes
    "content-type": "application/json",
}
# Uvicorn, and so vLLM, closes an idle connection after 5 s: let go before that, or a request meets the closing.
_KEEPALIVE_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer, with its content encoding undone; `ttfb_ms` is when its headers had come."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    latency_ms: float
    ttfb_ms: float


class Connections:
    """A pool of kept-alive connections, at most `max_concurrency` of them; redirects are not followed.

    Requests go straight to httpx's transport: the client above it costs more CPU a request for redirects, cookies and
    authentication that nobody wants here, and it logs every request.
    """

    def __init__(self, config: Provider, headers: dict[str, str]) -> None:
        self._config = config
        self._headers = _OWN_HEADERS | {"user-agent": _user_agent()} | headers
        self._tls = httpx2.create_ssl_context()
        self._transport = AiohttpTransport(verify=self._tls, client=self._open_session)
        self._timeouts = {"timeout": {"connect": config.connect_timeout_s}}

    def _open_session(self) -> aiohttp.ClientSession:
        limit = self._config.max_concurrency
        connector = aiohttp.TCPConnector(limit=limit, keepalive_timeout=_KEEPALIVE_S, ssl=self._tls)
        return aiohttp.ClientSession(connector=connector, headers=self._headers, cookie_jar=aiohttp.DummyCookieJar())

    async def post(self, url: httpx2.URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send exactly these bytes once, and wait for the whole answer.

        Raises:
            ProviderError: no whole answer of at most `MAX_ANSWER_BYTES` came in time.
        """
        # A given stream keeps httpx from computing headers that aiohttp computes again; read() makes it plain bytes.
        request = httpx2.Request(
            "POST", url, headers=headers, stream=httpx2.ByteStream(body), extensions=self._timeouts
        )
        request.read()
        return await self._ask(request)

    async def get(self, url: httpx2.URL) -> Answer:
        """Ask once, and wait for the whole answer.

        Raises:
            ProviderError: no whole answer of at most `MAX_ANSWER_BYTES` came in time.
        """
        return await self._ask(httpx2.Request("GET", url, extensions=self._timeouts))

    async def _ask(self, request: httpx2.Request) -> Answer:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._open(request)
                ttfb_ms = (time.perf_counter() - started) * 1000
                content = await self._read(response)
        except TimeoutError as error:
            message = f"The provider did not answer within {self._config.timeout_s:g} s."
            raise ProviderError("request_timeout", message) from error
        latency_ms = (time.perf_counter() - started) * 1000
        return Answer(response.status_code, response.headers, content, latency_ms, ttfb_ms)

    async def _open(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._transport.handle_async_request(request)
        except httpx2.TransportError as error:
            raise ProviderError("connection_error", f"The provider could not be reached: {_reason(error)}") from error
        except aiohttp.ClientError as error:
            message = f"The provider's answer is not HTTP: {_reason(error)}"
            raise ProviderError("invalid_response", message) from error

    async def _read(self, response: httpx2.Response) -> bytes:
        content = bytearray()
        is_encoded = "content-encoding" in response.headers  # the raw stream costs less
        try:
            async with aclosing(response.aiter_bytes() if is_encoded else response.aiter_raw()) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        message = f"The provider's answer is larger than {MAX_ANSWER_BYTES} bytes."
                        raise ProviderError("invalid_response", message)
        except (httpx2.TransportError, httpx2.DecodingError, aiohttp.ClientError) as error:
            message = f"The provider's answer was cut short or garbled: {_reason(error)}"
            raise ProviderError("invalid_response", message) from error
        finally:
            await response.aclose()
        return bytes(content)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def _reason(error: Exception) -> str:
    """Say what went wrong without the URL, whose query may hold a key."""
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return text or type(error).__name__


def _user_agent() -> str:
    try:
        return f"batchord/{version('batchord')}"
    except PackageNotFoundError:  # a checkout that is not installed
        return "batchord/0"
