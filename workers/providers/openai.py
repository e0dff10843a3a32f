"""Any server that speaks OpenAI's API: where a request goes and under which key. Not for what the answers mean."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import httpx2

from batchord.errors import ConfigError
from workers.providers.answers import model_names, read_answer
from workers.providers.connections import Connections
from workers.providers.seam import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.routing import Provider
    from workers.providers.seam import Request, Response

_MODELS_TIMEOUT_S: Final = 10


class OpenAIProvider:
    """A client of one OpenAI-compatible server.

    `base_url` means what it means to the `openai` SDK: what comes before `/chat/completions`. So an endpoint loses its
    leading `/v1`, and the rest is appended: `http://h/v1` and `/v1/embeddings` make `http://h/v1/embeddings`, and
    `http://h/openai/` makes `http://h/openai/embeddings`. A query in the base URL stays.

    The body goes out unchanged, with an `Idempotency-Key` and the configured headers, which win over our own.
    """

    def __init__(self, config: Provider, environ: Mapping[str, str]) -> None:
        self._base_url = _base_url(config)
        self._targets: dict[str, bytes] = {}
        own_headers = {name.lower(): value for name, value in config.headers.items()}
        headers = _authorization(config, environ) | own_headers
        self._connections = Connections(config, self._base_url, headers)

    async def send(self, request: Request) -> Response:
        """Send one request once; see `ProviderClient`."""
        target = self._target(request.endpoint)
        answer = await self._connections.post(target, request.body, request.idempotency_key)
        return read_answer(
            answer.status_code,
            answer.headers,
            answer.body,
            latency_ms=answer.latency_ms,
            ttfb_ms=answer.ttfb_ms,
            now=time.time(),
        )

    async def models(self) -> list[str]:
        """Ask `GET {base_url}/models`; see `ProviderClient`."""
        try:
            async with asyncio.timeout(_MODELS_TIMEOUT_S):
                answer = await self._connections.get(self._target("/models"))
        except (ProviderError, TimeoutError):
            return []
        return model_names(answer.body) if answer.status_code == httpx2.codes.OK else []

    def _target(self, endpoint: str) -> bytes:
        """Give what a request line asks for: the path and the query."""
        if endpoint not in self._targets:
            path = self._base_url.path.rstrip("/") + endpoint.removeprefix("/v1")
            self._targets[endpoint] = self._base_url.copy_with(path=path).raw_path
        return self._targets[endpoint]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()


def _base_url(config: Provider) -> httpx2.URL:
    try:
        url = httpx2.URL(config.base_url)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"Provider {config.name!r}: base_url is not a URL: {error}") from error
    if not url.host:
        raise ConfigError(f"Provider {config.name!r}: base_url names no host.")
    return url


def _authorization(config: Provider, environ: Mapping[str, str]) -> dict[str, str]:
    if not config.api_key_env:
        return {}
    key = environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"Provider {config.name!r}: the environment variable {config.api_key_env} is not set. Set it to the API "
            "key, or leave api_key_env out for a server that needs none."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"Provider {config.name!r}: the value of {config.api_key_env} cannot be an API key.")
    return {"authorization": f"Bearer {key}"}
