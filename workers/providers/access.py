"""What the configuration says of a provider's server, checked before anything is sent: where it is, and its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2

from batchord.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.routing import Provider


def base_url(config: Provider, default: str = "") -> httpx2.URL:
    """Give the base URL, or the default where the configuration states none.

    Raises:
        ConfigError: it leads nowhere.
    """
    try:
        url = httpx2.URL(config.base_url or default)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"Provider {config.name!r}: base_url is not a URL: {error}") from error
    if not url.host:
        raise ConfigError(f"Provider {config.name!r}: base_url names no host.")
    return url


def api_key(config: Provider, variable: str, environ: Mapping[str, str]) -> str:
    """Give the API key that a variable holds.

    Raises:
        ConfigError: it holds none, or what no header can carry.
    """
    key = environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"Provider {config.name!r}: the environment variable {variable} is not set. Set it to the API "
            "key, or leave api_key_env out for a server that needs none."
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"Provider {config.name!r}: the value of {variable} cannot be an API key.")
    return key
