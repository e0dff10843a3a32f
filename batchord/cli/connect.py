"""Whether a provider can be reached and takes the key: one request for its list of models. It costs nothing there."""

from __future__ import annotations

import json
import ssl
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from batchord.presets import ANTHROPIC_BASE_URL
from batchord.providers_sense import key_variable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from batchord.routing import Provider

_TIMEOUT_S: Final = 10
_MOST_BYTES: Final = 4 * 1024 * 1024


class Contact(NamedTuple):
    """What came of it: whether lines may be sent there, as far as can be seen, and the words for it."""

    is_well: bool
    text: str


def connect(provider: Provider, environ: Mapping[str, str]) -> Contact:
    """Ask a provider for its models, with its key and its headers."""
    if provider.kind == "simulated":
        return Contact(is_well=True, text="simulated; there is nothing to reach")
    url = urlsplit(provider.base_url or ANTHROPIC_BASE_URL)
    try:
        with closing(_connection(url)) as connection:
            connection.request("GET", _target(provider, url), headers=_headers(provider, environ))
            answer = connection.getresponse()
            return _contact(provider, answer.status, answer.read(_MOST_BYTES))
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Contact(is_well=False, text=f"not reachable at {url.hostname}: {reason}")


def _connection(url: SplitResult) -> HTTPConnection:
    if url.scheme == "https":
        return HTTPSConnection(url.hostname or "", url.port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
    return HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT_S)


def _target(provider: Provider, url: SplitResult) -> str:
    path = url.path.rstrip("/") + ("/v1/models" if provider.kind == "anthropic" else "/models")
    return f"{path}?{url.query}" if url.query else path


def _headers(provider: Provider, environ: Mapping[str, str]) -> dict[str, str]:
    key = environ.get(key_variable(provider), "").strip()
    headers = {"accept": "application/json"}
    if provider.kind == "anthropic":
        headers |= {"x-api-key": key, "anthropic-version": provider.anthropic_version}
    elif key:
        headers["authorization"] = f"Bearer {key}"
    return headers | {name.lower(): value for name, value in provider.headers.items()}


def _contact(provider: Provider, status: int, body: bytes) -> Contact:
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        variable = key_variable(provider)
        key = f"the key of {variable}" if variable else "to answer without a key (api_key_env)"
        return Contact(is_well=False, text=f"reachable, but it refuses {key}: {status}")
    if status == HTTPStatus.OK:
        return Contact(is_well=True, text=f"reachable{_accepted(provider)}{_models(body)}")
    if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
        return Contact(is_well=True, text=f"reachable; it has no list of models ({status}), so the key is not tried")
    return Contact(is_well=False, text=f"reachable, but it answers {status}")


def _accepted(provider: Provider) -> str:
    variable = key_variable(provider)
    return f", the key of {variable} accepted" if variable else ""


def _models(body: bytes) -> str:
    try:
        listed = json.loads(body)
    except ValueError:
        return ""
    names = listed.get("data") if isinstance(listed, dict) else None
    return f", {len(names):,} models" if isinstance(names, list) else ""
