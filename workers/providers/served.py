"""A provider that serves some endpoints only: what it is asked for, and what it can be asked for instead. Not HTTP."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from workers.providers.from_responses import from_responses
from workers.providers.refusals import RefusedError, refusal
from workers.providers.seam import ProviderError
from workers.providers.to_responses import to_responses

if TYPE_CHECKING:
    from collections.abc import Collection

    from workers.providers.seam import ProviderClient, Request, Response

_CHAT: Final = "/v1/chat/completions"
_RESPONSES: Final = "/v1/responses"
# A surrogate without its other half is a ValueError; RecursionError is what too deep nesting ends in.
_NOT_JSON: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class ServedEndpoints:
    """A provider's client, for the endpoints that the provider has: requests for these pass as they are.

    A request for `/v1/responses` becomes a chat completion where the provider has only that, and its answer becomes the
    Responses object. Whatever cannot be asked for is answered with a 400 that names the field, and is not sent.
    """

    def __init__(self, client: ProviderClient, name: str, endpoints: Collection[str]) -> None:
        self._client = client
        self._name = name
        self._endpoints = frozenset(endpoints)

    async def send(self, request: Request) -> Response:
        """Send one request once, as it is or as what stands for it; see `ProviderClient`."""
        if request.endpoint in self._endpoints:
            return await self._client.send(request)
        try:
            if request.endpoint == _RESPONSES and _CHAT in self._endpoints:
                return await self._send_as_chat(request)
            raise self._not_served(request.endpoint)
        except RefusedError as error:
            return refusal(error)

    async def _send_as_chat(self, request: Request) -> Response:
        asked = _decoded(request.body)
        answer = await self._client.send(replace(request, endpoint=_CHAT, body=_encoded(from_responses(asked))))
        if not answer.is_success:
            return answer
        told = to_responses(asked, _completion(answer.body), time.time())
        return replace(answer, body=msgspec.json.encode(told))

    def _not_served(self, endpoint: str) -> RefusedError:
        has = ", ".join(sorted(self._endpoints))
        message = f"The provider {self._name!r} does not serve {endpoint}. It serves {has}."
        return RefusedError("url", message, "unsupported_endpoint")

    async def models(self) -> list[str]:
        """Ask for the models; see `ProviderClient`."""
        return await self._client.models()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        asked: dict[str, Any] = msgspec.json.decode(body, type=dict)
    except _NOT_JSON as error:
        raise RefusedError(None, f"The body is not a JSON object: {error}", "invalid_json") from None
    return asked


def _completion(body: bytes) -> dict[str, Any]:
    try:
        completion: dict[str, Any] = msgspec.json.decode(body)
    except _NOT_JSON as error:
        raise ProviderError("invalid_response", f"The provider's answer cannot be read: {error}") from error
    return completion


def _encoded(chat: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(chat)
    except RecursionError:
        raise RefusedError(None, "The body is nested too deeply.", "invalid_json") from None
