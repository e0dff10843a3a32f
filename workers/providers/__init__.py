"""The seam between a line and the upstream that answers it. Not for retries, permits or routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workers.providers.anthropic import AnthropicProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.seam import ProviderClient, ProviderError, Request, Response
from workers.providers.served import ServedEndpoints
from workers.providers.simulated import SimulatedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchord.routing import Provider

__all__ = ["ProviderClient", "ProviderError", "Request", "Response", "open_provider"]

_KINDS: Final[dict[str, Callable[[Provider, Mapping[str, str]], ProviderClient]]] = {
    "anthropic": AnthropicProvider,
    "openai": OpenAIProvider,
    "simulated": SimulatedProvider,
}

_ENDPOINTS: Final = {"anthropic": ("/v1/chat/completions", "/v1/messages")}
"""What a kind serves by its nature; of the others, it is what the configuration says, or else everything."""


def open_provider(config: Provider, environ: Mapping[str, str]) -> ProviderClient:
    """Make the client of a configured provider; the network is first touched by its first `send`.

    Raises:
        ConfigError: the base URL makes no sense, or the variable that should hold the key does not.
    """
    client = _KINDS[config.kind](config, environ)
    endpoints = config.endpoints or _ENDPOINTS.get(config.kind)
    return ServedEndpoints(client, config.name, endpoints) if endpoints else client
