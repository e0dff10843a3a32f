"""What an Idempotency-Key stands for: one request and the one batch that it makes. Not for making the batch."""

from __future__ import annotations

from hashlib import sha256
from typing import Final, NamedTuple

from batchord.state import keys
from batchord.state.calls import Call, nothing

_LIFE_S: Final = 86_400


class Claim(NamedTuple):
    """The request that a key was first used with, by its fingerprint, and the id that was chosen for its batch."""

    fingerprint: str
    batch_id: str


def digest(key: str) -> str:
    """Give what is kept of an Idempotency-Key."""
    return sha256(key.encode()).hexdigest()


def claim(tenant: str, digest: str, wanted: Claim) -> Call[None]:
    """Claim a key for a day, unless it is claimed already; `read` then says who has it."""
    return Call(("SET", keys.once(tenant, digest), " ".join(wanted), "NX", "EX", _LIFE_S), nothing)


def read(tenant: str, digest: str) -> Call[Claim | None]:
    """Give what a key stands for; None for a key that was not used for a day."""
    return Call(("GET", keys.once(tenant, digest)), lambda answer: Claim(*answer.decode().split()) if answer else None)


def forget(tenant: str, digest: str) -> Call[None]:
    """Let a key be used anew: the batch that it made is removed."""
    return Call(("DEL", keys.once(tenant, digest)), nothing)
