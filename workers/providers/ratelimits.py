"""What the headers of an answer say of a provider's limits: pure, and nothing where they say nothing or nonsense."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from workers.providers.seam import StatedLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

Dialect: TypeAlias = Literal["openai", "anthropic", "daily_requests", "mistral", "none"]
_Unit: TypeAlias = Literal["requests", "tokens"]

_MINUTE_S: Final = 60
_DAY_S: Final = 86_400
_NUMBER: Final = re.compile(r"\d{1,12}(\.\d{1,12})?", re.ASCII)
_PART: Final = r"(?:(\d{{1,9}}(?:\.\d{{1,9}})?){})?"
_SECONDS: Final = {"d": _DAY_S, "h": 3600, "m": 60, "s": 1, "ms": 0.001}
_DURATION: Final = re.compile("".join(_PART.format(unit) for unit in ("d", "h", "m(?!s)", "s", "ms")), re.ASCII)


class _Names(NamedTuple):
    """The headers of one limit."""

    unit: _Unit
    window_s: float
    limit: str
    remaining: str
    reset: str


def _openai(unit: _Unit, window_s: float = _MINUTE_S) -> _Names:
    return _Names(unit, window_s, *(f"x-ratelimit-{part}-{unit}" for part in ("limit", "remaining", "reset")))


def _anthropic(unit: _Unit, kind: str) -> _Names:
    return _Names(unit, _MINUTE_S, *(f"anthropic-ratelimit-{kind}-{part}" for part in ("limit", "remaining", "reset")))


def _mistral(unit: _Unit, word: str) -> _Names:
    return _Names(unit, _MINUTE_S, *(f"x-ratelimit-{part}-{word}-minute" for part in ("limit", "remaining", "reset")))


_NAMES: Final[dict[str, tuple[_Names, ...]]] = {
    "openai": (_openai("requests"), _openai("tokens")),
    "daily_requests": (_openai("requests", _DAY_S), _openai("tokens")),
    "anthropic": (_anthropic("requests", "requests"), _anthropic("tokens", "tokens")),
    "mistral": (_mistral("requests", "req"), _mistral("tokens", "tokens")),
    "none": (),
}
_ONE_WAY: Final = (_anthropic("tokens", "input-tokens"), _anthropic("tokens", "output-tokens"))


def read(headers: Mapping[str, str], dialect: Dialect, now: float) -> tuple[StatedLimit, ...]:
    """Give the limits that an answer states, in headers by their lower-case names; `now` is in epoch seconds.

    Requests and tokens are a minute's; with `daily_requests`, as Groq's, the requests are a day's. The sources are the
    pages on rate limits of OpenAI, Groq and Anthropic, and for Mistral, which tells no resets, mistralai/client-ts#169.
    """
    stated = [limit for names in _NAMES[dialect] if (limit := _stated(headers, names, now))]
    if dialect == "anthropic":
        stated += _by_direction(headers, now, has_total=any(limit.unit == "tokens" for limit in stated))
    return tuple(stated)


def seconds_until(reset: str, now: float) -> float | None:
    """Read when all of a limit is back, in seconds from now: `6m0s`, `120ms`, `7.5`, or a time of RFC 3339.

    What is further away than a day is nonsense, as most likely another form of time.
    """
    if _NUMBER.fullmatch(reset):
        after_s = float(reset)
    elif reset and (parts := _DURATION.fullmatch(reset)):
        after_s = sum(float(part) * unit for part, unit in zip(parts.groups("0"), _SECONDS.values(), strict=True))
    else:
        after_s = _after(reset, now)
    return after_s if after_s <= _DAY_S else None


def _after(reset: str, now: float) -> float:
    try:
        time = datetime.fromisoformat(reset)
    except ValueError:
        return float("inf")
    return max(0.0, time.timestamp() - now) if time.tzinfo else float("inf")


def _stated(headers: Mapping[str, str], names: _Names, now: float) -> StatedLimit | None:
    limit, remaining = _number(headers.get(names.limit)), _number(headers.get(names.remaining))
    if limit is None and remaining is None:
        return None
    reset = headers.get(names.reset)
    reset_s = None if reset is None else seconds_until(reset, now)
    return StatedLimit(names.unit, names.window_s, limit or None, remaining, reset_s)


@lru_cache(maxsize=1024)  # a limit is the same in each answer
def _number(text: str | None) -> float | None:
    return float(text) if text is not None and _NUMBER.fullmatch(text) else None


def _by_direction(headers: Mapping[str, str], now: float, *, has_total: bool) -> list[StatedLimit]:
    """Give what is left of the limits on input and output; they limit tokens together, where no total is stated.

    One of them alone is no limit on the sum, which is what is paced.
    """
    both = [limit for names in _ONE_WAY if (limit := _stated(headers, names, now))]
    sums = [limit.limit for limit in both if limit.limit is not None]
    left = [StatedLimit("tokens", limit.window_s, None, limit.remaining, limit.reset_s) for limit in both]
    if has_total or len(sums) < len(_ONE_WAY):
        return left
    return [StatedLimit("tokens", _MINUTE_S, sum(sums)), *left]
