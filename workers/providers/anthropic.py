"""Any server that speaks Anthropic's Messages API: for its own lines, and for chat completions. Not what they say."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.presets import ANTHROPIC_BASE_URL
from workers.providers.access import api_key, base_url
from workers.providers.answers import read_answer
from workers.providers.connections import Connections
from workers.providers.from_messages import from_error, from_messages
from workers.providers.models import listed_models
from workers.providers.refusals import RefusedError, refusal
from workers.providers.seam import ProviderError
from workers.providers.to_messages import to_messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.routing import Provider
    from workers.providers.seam import Request, Response

_MESSAGES: Final = "/v1/messages"
_KEY_VARIABLE: Final = "ANTHROPIC_API_KEY"
_MOST_MODELS: Final = {"limit": "1000"}  # that one answer may list


class AnthropicProvider:
    """A client of one server with the Messages API.

    `base_url` means what it means to the `anthropic` SDK: what comes before `/v1/messages`. As there, the key is that
    of `ANTHROPIC_API_KEY` where the configuration names no variable; a server of one's own may do without.

    A line for `/v1/messages` and its answer stay as they are, to the byte. A line for `/v1/chat/completions` is
    translated, and so is its answer; one that cannot be is answered with a 400 and not sent.
    """

    def __init__(self, config: Provider, environ: Mapping[str, str]) -> None:
        self._default_max_tokens = config.default_max_tokens
        self._rate_headers = config.rate_headers if "rate_headers" in config.model_fields_set else "anthropic"
        url = base_url(config, ANTHROPIC_BASE_URL)
        path = url.path.rstrip("/")
        self._messages = url.copy_with(path=path + _MESSAGES).raw_path
        self._models = url.copy_with(path=f"{path}/v1/models").copy_merge_params(_MOST_MODELS).raw_path
        own_headers = {name.lower(): value for name, value in config.headers.items()}
        headers = {"anthropic-version": config.anthropic_version} | _key(config, environ) | own_headers
        self._connections = Connections(config, url, headers)

    async def send(self, request: Request) -> Response:
        """Send one request once; see `ProviderClient`."""
        if request.endpoint == _MESSAGES:
            return await self._send(request.body, request.idempotency_key)
        try:
            body = to_messages(request.body, self._default_max_tokens)
        except RefusedError as error:
            return refusal(error)
        return _as_chat(await self._send(body, request.idempotency_key))

    async def _send(self, body: bytes, idempotency_key: str) -> Response:
        answer = await self._connections.post(self._messages, body, idempotency_key)
        return read_answer(answer, time.time(), self._rate_headers)

    async def models(self) -> list[str]:
        """Ask `GET {base_url}/v1/models`; see `ProviderClient`."""
        return await listed_models(self._connections, self._models)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()


def _as_chat(answer: Response) -> Response:
    if not answer.is_success:
        status_code, body = from_error(answer.status_code, answer.body)
        return replace(answer, status_code=status_code, body=body)
    try:
        return replace(answer, body=from_messages(answer.body, int(time.time())))
    except (msgspec.DecodeError, RecursionError) as error:  # what cannot be decoded may still be JSON
        raise ProviderError("invalid_response", f"The provider's answer is no message: {error}") from error


def _key(config: Provider, environ: Mapping[str, str]) -> dict[str, str]:
    is_optional = config.base_url and not config.api_key_env
    if is_optional and not environ.get(_KEY_VARIABLE):
        return {}
    return {"x-api-key": api_key(config, config.api_key_env or _KEY_VARIABLE, environ)}
