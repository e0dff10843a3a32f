"""Which rates the requests of a model must keep, and what they take of them: stated, learned, or none. Pure rules."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from batchord.state.rates import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchord.routing import ModelLimits, Provider
    from workers.providers.seam import StatedLimit

_MARGIN: Final = 0.01
"""How much of a limit is left unused: no two clocks run alike, and requests arrive with jitter."""
_TOKEN_MARGIN: Final = 0.03
"""The same of a limit on tokens: no request uses just what was estimated, and some providers look at each second."""
_LONGEST_WINDOW_S: Final = 60
"""A limit over more than a minute says nothing of the pace: a day's may well be used up in an hour."""
_LARGE: Final = 0.5


class Rates(NamedTuple):
    """So many a minute; None where that is not limited."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def lower(self, other: Rates) -> Rates:
        """Give the lower limits of the two."""
        return Rates(*(_lower(mine, others) for mine, others in zip(self, other, strict=True)))


NO_RATES: Final = Rates()


class Limit(NamedTuple):
    """One bucket of a lane: a limit a minute on requests or on tokens."""

    name: str
    is_shared: bool
    per_minute: float
    counts_tokens: bool

    def cost_s(self, tokens: float) -> float:
        """Give for how many seconds a request of so many tokens takes the bucket.

        What is a large part of the limit takes more than its part of a minute: a window of a minute that holds n such
        requests, evenly spaced, then holds no more than the limit, wherever it begins. More than a minute's limit at
        once is sent all the same, and the bucket is in debt.
        """
        if not self.counts_tokens:
            return 60 / self.per_minute / (1 - _MARGIN)
        part = tokens / self.per_minute
        if _TOKEN_MARGIN < part <= _LARGE:
            return 60 * part / (1 - part)
        return 60 * (max(1.0, part) if part > _LARGE else part) / (1 - _TOKEN_MARGIN)

    def bucket(self, correction_tokens: float) -> Bucket:
        """Give the bucket as Redis keeps it, to be corrected by so many tokens."""
        correction_s = 60 * correction_tokens / self.per_minute / (1 - _TOKEN_MARGIN) if self.counts_tokens else 0
        return Bucket(self.name, self.is_shared, correction_s)


class Lane(NamedTuple):
    """What the models with the same limits wait for in one line, and the limits that their requests keep."""

    name: str
    limits: tuple[Limit, ...]


def rate_lane(provider: Provider, model: str, learned: Mapping[str, Rates]) -> Lane | None:
    """Give the lane of a model, or None where nothing limits its rate.

    The provider's limits, those of the first glob that matches, and those learned for the model hold all at once; the
    last of them is the lane's own, and its requests are evenly paced by the lowest of all.
    """
    chain = [("provider", _stated(provider))]
    glob = next((glob for glob in provider.limits if fnmatchcase(model, glob)), None)
    if glob is not None:
        chain.append((f"glob {glob}", _stated(provider.limits[glob])))
    stated = _lowest(rates for _, rates in chain)
    if model in learned and stated.lower(learned[model]) != stated:
        chain.append((f"model {model}", learned[model]))
    chain = [(name, rates) for name, rates in chain if rates != NO_RATES]
    if not chain:
        return None
    *shared, (name, _) = chain
    limits = [limit for of, rates in shared for limit in _limits(of, rates, is_shared=True)]
    limits += _limits(name, _lowest(rates for _, rates in chain), is_shared=False)
    return Lane(name, tuple(limits))


def rates_stated(stated: Sequence[StatedLimit]) -> Rates:
    """Give what headers say of limits by the minute; the lowest where they say several."""
    rates = NO_RATES
    for limit in stated:
        if limit.limit and limit.window_s <= _LONGEST_WINDOW_S:
            per_minute = limit.limit * 60 / limit.window_s
            rates = rates.lower(Rates(per_minute) if limit.unit == "requests" else Rates(None, per_minute))
    return rates


def in_force(provider: Provider, learned: Mapping[str, Rates]) -> Rates:
    """Give the rates of a provider as a whole, for display: as stated, or the lowest learned of any model."""
    return _lowest([_stated(provider), *learned.values()])


def _stated(limits: Provider | ModelLimits) -> Rates:
    return Rates(limits.requests_per_minute, limits.tokens_per_minute)


def _lowest(several: Iterable[Rates]) -> Rates:
    lowest = NO_RATES
    for rates in several:
        lowest = lowest.lower(rates)
    return lowest


def _lower(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


def _limits(of: str, rates: Rates, *, is_shared: bool) -> list[Limit]:
    """Give the buckets of one link of the chain, by names that can't be those of another."""
    units = zip(("requests", "tokens"), rates, (False, True), strict=True)
    return [Limit(f"{unit} {of}", is_shared, rate, counts) for unit, rate, counts in units if rate is not None]
