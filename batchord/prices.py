"""What a request costs: an operator's own prices first, then the public ones of `genai-prices`, offline. No I/O.

Costs are whole nano-dollars, so that sums in Redis are exact. Rates are whole pico-dollars a token: a price of 0.15
dollars a million tokens is a rate of 150,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from batchord.contract import NO_USAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genai_prices.types import ModelPrice, TieredPrices

    from batchord.contract import Usage
    from batchord.routing import Provider

    _Part = Decimal | TieredPrices | None

NANOS_PER_DOLLAR: Final = 1_000_000_000
_PICOS_PER_NANO: Final = 1_000
_PICOS_PER_TOKEN: Final = 1_000_000
"""What a price of a dollar a million tokens is, in pico-dollars a token."""
_PICOS_PER_REQUEST: Final = 1_000_000_000
"""What a price of a dollar a thousand requests is, in pico-dollars a request."""
_ALWAYS: Final = -1
"""What every request has more input tokens than."""
_KEPT: Final = 1_024
_QUARTER_S: Final = 900
"""Some prices depend on the time of day, and change at most at a quarter of an hour."""


class Rates(NamedTuple):
    """Pico-dollars a token in requests of more than `above` input tokens; `output` is None where it is unknown."""

    above: int
    input: int
    cached: int
    output: int | None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs at a provider: its rates from the lowest tier up, and what each request costs besides.

    A tier's rates are for all tokens of a request, as the providers that have tiers do it.
    """

    tiers: tuple[Rates, ...]
    request: int = 0

    def cost(self, usage: Usage) -> int | None:
        """Give the cost of one request in nano-dollars; None where its output has no known price."""
        rates = next(tier for tier in reversed(self.tiers) if usage.input_tokens > tier.above)
        if rates.output is None and usage.output_tokens:
            return None
        cached = min(usage.cached_tokens, usage.input_tokens)
        picos = (usage.input_tokens - cached) * rates.input + cached * rates.cached
        picos += usage.output_tokens * (rates.output or 0) + self.request
        return (picos + _PICOS_PER_NANO // 2) // _PICOS_PER_NANO

    @property
    def is_free(self) -> bool:
        """Whether everything costs nothing, so that no usage needs to be known."""
        return not self.request and not any(any(tier[1:]) for tier in self.tiers)


def cost_of(price: Price | None, usage: Usage, *, succeeded: bool) -> int | None:
    """Give the cost of an answered request in nano-dollars, None where it is unknown.

    A refusal without usage costs nothing; a success without usage costs nobody knows what.
    """
    if usage == NO_USAGE and not succeeded:
        return 0
    if price is None or (usage == NO_USAGE and not price.is_free):
        return None
    return price.cost(usage)


class Prices:
    """The prices of the configured providers' models.

    A provider's own table comes first: its first glob that matches the model. Else, where the public data knows the
    host of its base URL, the price is that service's; where it does not, as behind a proxy, it is the model's maker's.
    What answers on hardware of one's own deserves a table. Simulated providers cost nothing that could be known.
    """

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers = providers
        self._of = lru_cache(maxsize=_KEPT)(self._look_up)

    def of(self, provider: str, model: str, now: float) -> Price | None:
        """Give the price of a provider's model at a time (UTC epoch seconds), or None where it is unknown."""
        return self._of(provider, model, int(now // _QUARTER_S))

    def _look_up(self, name: str, model: str, quarter: int) -> Price | None:
        provider = self._providers.get(name)
        if provider is None:
            return None
        for pattern, own in provider.prices.items():
            if fnmatchcase(model, pattern):
                cached = own.input if own.cached is None else own.cached
                return Price((Rates(_ALWAYS, _rate(own.input), _rate(cached), _rate(own.output)),))
        if provider.kind == "simulated":
            return None
        return _public_price(provider.base_url, model, datetime.fromtimestamp(quarter * _QUARTER_S, UTC))


def in_dollars(nanos: int | None) -> float | None:
    """Give nano-dollars as dollars; what is not known stays unknown."""
    return None if nanos is None else nanos / NANOS_PER_DOLLAR


def _public_price(base_url: str, model: str, at: datetime) -> Price | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  (0.4 s and 39 MB, where it is needed)

    snapshot, ref = get_snapshot(), model.lower()
    try:
        service = snapshot.find_provider(None, None, base_url)
    except LookupError:
        makers = (p for p in snapshot.providers if p.model_match is not None and p.model_match.is_match(ref))
        maker = next(makers, None)
        if maker is None:
            return None
        service = maker
    found = service.find_model(ref, all_providers=snapshot.providers)
    return None if found is None else _price(found.get_prices(at))


def _price(public: ModelPrice) -> Price | None:
    """Give a public price in our form; None where tokens have none (a model that is paid by the second, say)."""
    if public.input_mtok is None:
        return None
    cached = public.input_mtok if public.cache_read_mtok is None else public.cache_read_mtok
    parts = (public.input_mtok, cached, public.output_mtok)
    steps = sorted({_ALWAYS}.union(*map(_steps, parts)))
    per_request = _decimal(public.requests_kcount, _ALWAYS) * _PICOS_PER_REQUEST
    return Price(tuple(_rates(step, *parts) for step in steps), int(per_request))


def _rates(above: int, fresh: _Part, cached: _Part, output: _Part) -> Rates:
    known = _rate(_decimal(output, above)) if output is not None else None
    return Rates(above, _rate(_decimal(fresh, above)), _rate(_decimal(cached, above)), known)


def _steps(part: _Part) -> set[int]:
    return set() if part is None or isinstance(part, Decimal) else {tier.start for tier in part.tiers}


def _decimal(part: _Part, above: int) -> Decimal:
    """Give what a part costs in requests of more than `above` input tokens; nothing where it is not charged."""
    if part is None or isinstance(part, Decimal):
        return part or Decimal(0)
    reached = [tier.price for tier in part.tiers if tier.start <= above]
    return reached[-1] if reached else part.base


def _rate(price: Decimal) -> int:
    return round(price * _PICOS_PER_TOKEN)
