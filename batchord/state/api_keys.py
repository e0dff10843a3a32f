"""The API keys that are kept in Redis: whose each is, and the hash of its secret. Not for what a key may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from batchord.state import keys
from batchord.state.calls import Call, Script, nothing

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIND = Script("find_key")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key; times are UTC epoch seconds. `secret_sha256` is hexadecimal, and all that is kept of the secret."""

    id: str
    secret_sha256: str
    tenant: str
    name: str
    created_at: int
    revoked_at: int | None = None


class Found(NamedTuple):
    """The key of an id, if there is one, and whether there is any key at all, revoked ones included."""

    key: ApiKey | None
    any_exists: bool


def find(key_id: str) -> Call[Found]:
    """Look a key up by its id."""
    return _FIND.call([keys.API_KEYS], (key_id,), _found)


def write(key: ApiKey) -> Call[None]:
    """Write a key, in place of any of the same id."""
    return Call(("HSET", keys.API_KEYS, key.id, msgspec.json.encode(key)), nothing)


def every() -> Call[list[ApiKey]]:
    """Give every key, the oldest first."""
    return Call(("HVALS", keys.API_KEYS), _sorted)


def _found(answer: Any) -> Found:
    text, count = answer
    return Found(_key(text) if text else None, bool(count))


def _sorted(texts: Iterable[bytes]) -> list[ApiKey]:
    return sorted(map(_key, texts), key=lambda key: (key.created_at, key.id))


def _key(text: bytes) -> ApiKey:
    return msgspec.json.decode(text, type=ApiKey)
