"""API keys: who asks, who may, and how keys are made and revoked. Not for the keys of providers.

A key is of `BATCHORD_API_KEYS` or of Redis. Where there is none of either, whoever reaches the server is the default
tenant: so that is for a server that only its own machine reaches.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import time
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from batchord.contract import DEFAULT_TENANT
from batchord.errors import ConfigError, InvalidRequestError, KeyRefusedError, NotFoundError, UnavailableError
from batchord.state import api_keys
from batchord.state.api_keys import ApiKey
from batchord.state.connection import BlockingState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.service.backend import Backend
    from batchord.settings import Settings

_log = logging.getLogger(__name__)

_TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_PRINTABLE: Final = re.compile(r"[!-~]+")
_MADE: Final = re.compile(r"sk-batchord-([0-9a-f]{16})-([0-9a-f]{48})")
_MASKED_CHARACTERS: Final = 12
"""A key shorter than this is not shown in part either."""
_HOW_TO: Final = "Set BATCHORD_API_KEYS (tenant:key,...), or make a key with: batchord keys create --tenant NAME"
_NO_KEY: Final = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY). You can get one from whoever runs this server."
)
_STRANGE_HOST: Final = (
    "Without an API key this server answers only requests that name this machine, as http://127.0.0.1 and "
    f"http://localhost do; this one names {{host!r}}. {_HOW_TO}"
)
_SHOWN_CHARACTERS: Final = 100


class ConfiguredKey(NamedTuple):
    """A key of the environment: whose it is, and its hash."""

    tenant: str
    sha256: bytes


def configured_keys(api_keys: str) -> tuple[ConfiguredKey, ...]:
    """Read `BATCHORD_API_KEYS`: `tenant:key`, or a bare key of the default tenant, separated by commas.

    Raises:
        ConfigError: an entry is neither, or one key is two tenants'; the message shows no key.
    """
    entries = [entry.strip() for entry in api_keys.split(",")] if api_keys.strip() else []
    configured = [_configured(number, entry) for number, entry in enumerate(entries, 1)]
    tenants = {key.sha256: key.tenant for key in configured}
    for number, key in enumerate(configured, 1):
        if tenants[key.sha256] != key.tenant:
            raise ConfigError(f"BATCHORD_API_KEYS: the key of entry {number} is also another tenant's.")
    return tuple(configured)


def _configured(number: int, entry: str) -> ConfiguredKey:
    tenant, colon, key = entry.rpartition(":")
    if not _PRINTABLE.fullmatch(key) or bool(colon) != bool(_TENANT.fullmatch(tenant)):
        raise ConfigError(
            f"BATCHORD_API_KEYS: entry {number} is neither a key nor tenant:key. "
            "A tenant's name has lower-case letters, digits, - and _; a key has no spaces."
        )
    return ConfiguredKey(tenant or DEFAULT_TENANT, _digest(key))


async def authenticate(backend: Backend, authorization: str, named: Sequence[str] = ()) -> str:
    """Give the tenant that the value of an Authorization header, empty where there is none, speaks for.

    `named` are the hosts that the request names as the server and as its origin. Where no key is needed they must be
    this machine: else any page in a browser here could ask, under a name that leads here (DNS rebinding).

    Raises:
        KeyRefusedError: it holds no key, or one that is unknown or revoked.
    """
    key = _bearer(authorization)
    if tenant := _tenant_of_configured(backend.keys, key):
        return tenant
    made = _MADE.fullmatch(key)
    if backend.keys and not made:
        raise _refused(key)
    found = await backend.state.run(api_keys.find(made[1] if made else ""))
    if made and found.key and _is_good(found.key, made[2]):
        return found.key.tenant
    if found.any_exists or backend.keys or not is_loopback(backend.settings.host):
        raise _refused(key)
    if strange := [host for host in named if not is_loopback(host)]:
        raise KeyRefusedError(_STRANGE_HOST.format(host=strange[0][:_SHOWN_CHARACTERS]))
    return DEFAULT_TENANT


def _bearer(authorization: str) -> str:
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _tenant_of_configured(configured: tuple[ConfiguredKey, ...], key: str) -> str:
    """Compare with every key, so that the time tells nothing of which was like it."""
    digest, tenant = _digest(key), ""
    for candidate in configured:
        if compare_digest(candidate.sha256, digest):
            tenant = candidate.tenant
    return tenant


def _is_good(known: ApiKey, secret: str) -> bool:
    return compare_digest(known.secret_sha256, _digest(secret).hex()) and known.revoked_at is None


def _digest(key: str) -> bytes:
    """Hash a key; its entropy is that of a random number, so that no slow hash is needed."""
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _refused(key: str) -> KeyRefusedError:
    if not key:
        return KeyRefusedError(_NO_KEY)
    message = f"Incorrect API key provided: {masked(key)}. You can get one from whoever runs this server."
    return KeyRefusedError(message, "invalid_api_key")


def masked(key: str) -> str:
    """Give a key as a message may show it."""
    if len(key) < _MASKED_CHARACTERS or not _PRINTABLE.fullmatch(key):
        return "***"
    return f"{key[:5]}***{key[-2:]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is served on a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_key(settings: Settings) -> bool:
    """See to it, before anything is served, that there is a key where others than this machine are served.

    Returns:
        whether whoever asks needs a key.

    Raises:
        ConfigError: there is none, or `BATCHORD_API_KEYS` cannot be read.
    """
    if configured_keys(settings.api_keys):
        return True
    try:
        any_is_kept = _any_is_kept(settings.redis_url)
    except UnavailableError as error:  # nobody is let in while it is away
        _log.warning("Every request is answered 503 until Redis is there: %s", error)
        return True
    if not any_is_kept:
        _allow_without_key(settings.host)
    return any_is_kept


def _any_is_kept(redis_url: str) -> bool:
    state = BlockingState(redis_url)
    try:
        return state.run(api_keys.find("")).any_exists
    finally:
        state.close()


def _allow_without_key(host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(f"Others than this machine reach {host}, and there is no API key to tell them by. {_HOW_TO}")
    _log.warning("There is no API key, so every program on this machine is let in. %s", _HOW_TO)


def create(state: BlockingState, tenant: str, name: str = "") -> tuple[ApiKey, str]:
    """Make a key for a tenant, and give it with its text, which can never be read again.

    Raises:
        InvalidRequestError: the tenant's name is none.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequestError(
            f"Invalid tenant {tenant!r}: at most 63 lower-case letters, digits, - and _; the first is no - or _.",
            "tenant",
        )
    secret = secrets.token_hex(24)
    key = ApiKey(
        id=secrets.token_hex(8),
        secret_sha256=_digest(secret).hex(),
        tenant=tenant,
        name=name,
        created_at=int(time.time()),
    )
    state.run(api_keys.write(key))
    return key, f"sk-batchord-{key.id}-{secret}"


def revoke(state: BlockingState, key_id: str) -> ApiKey:
    """Have a key refused from now on; one that is revoked stays as it is.

    It is kept: were the last key forgotten, the server would let everybody in.

    Raises:
        NotFoundError: there is none of this id.
    """
    known = state.run(api_keys.find(key_id)).key
    if known is None:
        raise NotFoundError(f"No such API key: {key_id}. List them with: batchord keys list", "id")
    if known.revoked_at is not None:
        return known
    revoked = msgspec.structs.replace(known, revoked_at=int(time.time()))
    state.run(api_keys.write(revoked))
    return revoked
