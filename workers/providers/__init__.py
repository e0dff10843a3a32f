"""The seam between a line and the upstream that answers it. Not for retries, permits or routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workers.providers.openai import OpenAIProvider
from workers.providers.seam import ProviderClient, ProviderError, Request, Response
from workers.providers.simulated import SimulatedProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchord.routing import Provider

__all__ = ["ProviderClient", "ProviderError", "Request", "Response", "open_provider"]

_KINDS: Final[dict[str, Callable[[Provider, Mapping[str, str]], ProviderClient]]] = {
    "openai": OpenAIProvider,
    "simulated": SimulatedProvider,
}


def open_provider(config: Provider, environ: Mapping[str, str]) -> ProviderClient:
    """Make the client of a configured provider; the network is first touched by its first `send`.

    Raises:
        ConfigError: the base URL makes no sense, or the variable that should hold the key does not.
    """
    return _KINDS[config.kind](config, environ)
