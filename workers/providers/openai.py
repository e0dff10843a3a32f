"""Any server that speaks OpenAI's API: where a request goes and under which key. Not for what the answers mean."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workers.providers.access import api_key, base_url
from workers.providers.answers import read_answer
from workers.providers.connections import Connections
from workers.providers.models import listed_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.routing import Provider
    from workers.providers.seam import Request, Response


class OpenAIProvider:
    """A client of one OpenAI-compatible server.

    `base_url` means what it means to the `openai` SDK: what comes before `/chat/completions`. So an endpoint loses its
    leading `/v1`, and the rest is appended: `http://h/v1` and `/v1/embeddings` make `http://h/v1/embeddings`, and
    `http://h/openai/` makes `http://h/openai/embeddings`. A query in the base URL stays.

    The body goes out unchanged, with an `Idempotency-Key` and the configured headers, which win over our own.
    """

    def __init__(self, config: Provider, environ: Mapping[str, str]) -> None:
        self._rate_headers = config.rate_headers
        self._base_url = base_url(config)
        self._targets: dict[str, bytes] = {}
        own_headers = {name.lower(): value for name, value in config.headers.items()}
        headers = _authorization(config, environ) | own_headers
        self._connections = Connections(config, self._base_url, headers)

    async def send(self, request: Request) -> Response:
        """Send one request once; see `ProviderClient`."""
        target = self._target(request.endpoint)
        answer = await self._connections.post(target, request.body, request.idempotency_key)
        return read_answer(answer, time.time(), self._rate_headers)

    async def models(self) -> list[str]:
        """Ask `GET {base_url}/models`; see `ProviderClient`."""
        return await listed_models(self._connections, self._target("/models"))

    def _target(self, endpoint: str) -> bytes:
        """Give what a request line asks for: the path and the query."""
        if endpoint not in self._targets:
            path = self._base_url.path.rstrip("/") + endpoint.removeprefix("/v1")
            self._targets[endpoint] = self._base_url.copy_with(path=path).raw_path
        return self._targets[endpoint]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()


def _authorization(config: Provider, environ: Mapping[str, str]) -> dict[str, str]:
    variable = config.api_key_env
    return {"authorization": f"Bearer {api_key(config, variable, environ)}"} if variable else {}
