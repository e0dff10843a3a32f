"""The models that each provider says it serves, as a worker heard it last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from batchord.state import keys
from batchord.state.calls import Call, mapping, nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = msgspec.json.Decoder(list[str])


def write(provider: str, models: Sequence[str]) -> Call[None]:
    """Note what a provider lists, in place of what it listed before."""
    return Call(("HSET", keys.MODELS, provider, msgspec.json.encode(models)), nothing)


def read() -> Call[Mapping[str, Sequence[str]]]:
    """Read the lists of all providers by name; some may not be configured any more."""
    return Call(("HGETALL", keys.MODELS), _catalogues)


def _catalogues(answer: Any) -> Mapping[str, Sequence[str]]:
    return {provider: _NAMES.decode(names) for provider, names in mapping(answer).items()}
