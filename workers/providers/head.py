"""The head of a request to a provider: what of it is the same each time. Not for sending it."""

from __future__ import annotations

from base64 import b64encode
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from batchord.errors import ConfigError
from batchord.providers_sense import is_sendable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

_OWN_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "gzip",
    "content-type": "application/json",
}


def header_lines(provider: str, base_url: httpx2.URL, headers: Mapping[str, str]) -> bytes:
    """Give the lines that every request has; `headers`, by lower-case names, win over what comes without them.

    Raises:
        ConfigError: one of them cannot be sent, or is said by each request for itself.
    """
    said = {"host": base_url.netloc.decode()} | _OWN_HEADERS | {"user-agent": _user_agent()}
    if base_url.userinfo:
        credentials = f"{base_url.username}:{base_url.password}".encode()
        said["authorization"] = f"Basic {b64encode(credentials).decode()}"
    lines = said | dict(headers)
    for name, value in lines.items():
        if not is_sendable(name, value):
            raise ConfigError(f"Provider {provider!r}: the header {name!r} is batchord's own, or cannot be sent.")
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()


def _user_agent() -> str:
    try:
        return f"batchord/{version('batchord')}"
    except PackageNotFoundError:  # a checkout that is not installed
        return "batchord/0"
