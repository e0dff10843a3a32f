"""The rates of a provider as the fleet keeps them: when the next requests may be sent. Not how high they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from batchord.state import keys
from batchord.state.calls import Argument, Call, Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AHEAD_S: Final = 0.5
"""How far ahead times are given: what a worker that ends has not used of it is lost."""

_RESERVE, _LEARN = Script("reserve", "_clock"), Script("rate_learn", "_clock")
_MOST_TAKEN_S: Final = 600
"""No limit by the minute remembers more; so a nonsensical count of tokens stops nobody for ever."""
_BELIEVED_S: Final = 3600
"""For how long a learned limit holds unless it is stated again."""
_KEPT_S: Final = 86_400
_MOST_FIELDS: Final = 1_000
_MICROSECONDS: Final = 1e6


class Bucket(NamedTuple):
    """One limit: how many seconds it is taken for beyond what was reserved; whether requests of other lanes use it."""

    name: str
    is_shared: bool
    correction_s: float = 0


class Times(NamedTuple):
    """When requests may be sent: seconds after `now`, which is Redis' clock, for as many as got a time.

    The others are to be asked for again after `again_s`.
    """

    now: float
    again_s: float
    delays_s: list[float]


class Learned(NamedTuple):
    """A limit a minute that a provider stated for one model; `unit` is `requests` or `tokens`."""

    unit: str
    model: str
    per_minute: float


def reserve(provider: str, buckets: Sequence[Bucket], costs_s: Iterable[Sequence[float]]) -> Call[Times]:
    """Reserve times for waiting requests, in their order: of each, how many seconds of each bucket it takes.

    There must be a bucket; without requests the buckets are corrected only.
    """
    args: list[Argument] = [AHEAD_S, _MOST_TAKEN_S, _KEPT_S, len(buckets)]
    for bucket in buckets:
        args += [bucket.name, int(bucket.is_shared), bucket.correction_s]
    for costs in costs_s:
        args += costs
    return _RESERVE.call([keys.rates(provider)], args, _times)


def learn(provider: str, limits: Iterable[Learned] = ()) -> Call[list[Learned]]:
    """Tell the fleet of limits that answers stated, and give all that are known; each is forgotten after an hour."""
    args: list[Argument] = [_BELIEVED_S, _KEPT_S, _MOST_FIELDS]
    for limit in limits:
        args += [f"learned {limit.unit} {limit.model}", limit.per_minute]
    return _LEARN.call([keys.rates(provider)], args, _learned)


def _times(answer: Any) -> Times:
    now, again, *delays = (value / _MICROSECONDS for value in answer)
    return Times(now, again, delays)


def _learned(answer: Any) -> list[Learned]:
    limits = []
    for field, limit in zip(answer[::2], answer[1::2], strict=True):
        _, unit, model = field.decode().split(" ", 2)
        limits.append(Learned(unit, model, float(limit)))
    return limits
