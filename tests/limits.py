"""Limits as providers' servers keep them, exact and without a clock of their own. For tests; ours are elsewhere."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from email.utils import format_datetime
from math import ceil, floor, inf
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Unit = Literal["requests", "tokens"]
Kind = Literal["fixed", "sliding", "bucket"]
Wording = Literal["none", "seconds", "ms", "date"]
Dialect = Literal["none", "openai", "anthropic"]

_ROUNDING: Final = 1e-9
"""What sums of floats may be off by."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests or tokens in a window, counted in one of the ways that servers count.

    `burst` is for a bucket: how much it holds when it is full; by default what comes back in a window.
    """

    kind: Kind
    limit: float
    window_s: float = 60.0
    unit: Unit = "requests"
    burst: float | None = None

    @property
    def per_minute(self) -> float:
        return self.limit * 60 / self.window_s

    def counter(self) -> Counter:
        """Give what counts by it, with nothing used."""
        match self.kind:
            case "fixed":
                return FixedWindow(self.limit, self.window_s)
            case "sliding":
                return SlidingWindow(self.limit, self.window_s)
            case "bucket":
                return TokenBucket(self.limit / self.window_s, self.limit if self.burst is None else self.burst)


class Counter(Protocol):
    """What was used of a limit; times never go back. A cost above the whole limit fits where nothing is used."""

    def wait_s(self, cost: float, now: float) -> float:
        """Give the time until so much fits; 0 where it does now."""

    def take(self, cost: float, now: float) -> None: ...

    def remaining(self, now: float) -> float: ...

    def reset_s(self, now: float) -> float:
        """Give the time until nothing is used, if nobody asks meanwhile."""


class FixedWindow:
    """Counts anew from each multiple of the window: at a border, twice the limit can pass in no time."""

    def __init__(self, limit: float, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._number, self._used = 0, 0.0

    def wait_s(self, cost: float, now: float) -> float:
        self._enter(now)
        fits = self._used + min(cost, self._limit) <= self._limit
        return 0.0 if fits else (self._number + 1) * self._window_s - now

    def take(self, cost: float, now: float) -> None:
        self._enter(now)
        self._used += cost

    def remaining(self, now: float) -> float:
        self._enter(now)
        return max(0.0, self._limit - self._used)

    def reset_s(self, now: float) -> float:
        self._enter(now)
        return (self._number + 1) * self._window_s - now if self._used else 0.0

    def _enter(self, now: float) -> None:
        if (number := floor(now / self._window_s)) != self._number:
            self._number, self._used = number, 0.0


class SlidingWindow:
    """Remembers all that was taken: in no window, wherever it begins, does more than the limit pass."""

    def __init__(self, limit: float, window_s: float) -> None:
        self._limit, self._window_s = limit, window_s
        self._taken = deque[tuple[float, float]]()
        self._used = 0.0

    def wait_s(self, cost: float, now: float) -> float:
        self._forget(now)
        over, frees_at = self._used + min(cost, self._limit) - self._limit, now
        for at, taken in self._taken:
            if over <= 0:
                break
            over, frees_at = over - taken, at + self._window_s
        return frees_at - now

    def take(self, cost: float, now: float) -> None:
        self._forget(now)
        self._taken.append((now, cost))
        self._used += cost

    def remaining(self, now: float) -> float:
        self._forget(now)
        return max(0.0, self._limit - self._used)

    def reset_s(self, now: float) -> float:
        self._forget(now)
        return self._taken[-1][0] + self._window_s - now if self._taken else 0.0

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0][0] <= now - self._window_s:
            self._used -= self._taken.popleft()[1]


class TokenBucket:
    """Fills evenly up to `burst`; full at first. Below nothing it is in debt, after a cost above all that it holds."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._level, self._at = burst, -inf

    def wait_s(self, cost: float, now: float) -> float:
        lacking = min(cost, self._burst) - self._level_at(now)
        return lacking / self._per_s if lacking > _ROUNDING else 0.0

    def take(self, cost: float, now: float) -> None:
        self._level, self._at = self._level_at(now) - cost, now

    def remaining(self, now: float) -> float:
        return max(0.0, self._level_at(now))

    def reset_s(self, now: float) -> float:
        return (self._burst - self._level_at(now)) / self._per_s

    def _level_at(self, now: float) -> float:
        return min(self._burst, self._level + (now - self._at) * self._per_s)


class Admission:
    """Several limits at once: a request that one of them refuses uses none of them."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._counters = [(limit, limit.counter()) for limit in limits]

    def ask(self, tokens: float, now: float) -> float:
        """Take a request of so many tokens, and give 0; or take nothing, and give the seconds until it fits."""
        costs = [(counter, tokens if limit.unit == "tokens" else 1) for limit, counter in self._counters]
        wait_s = max((counter.wait_s(cost, now) for counter, cost in costs), default=0.0)
        for counter, cost in costs if not wait_s else ():
            counter.take(cost, now)
        return wait_s

    def standings(self, now: float) -> list[Standing]:
        """Give where each unit stands, by the first limit of it; in units a minute, whatever the window is."""
        firsts = {limit.unit: (limit, counter) for limit, counter in reversed(self._counters)}
        return [
            Standing(unit, limit.per_minute, counter.remaining(now), counter.reset_s(now))
            for unit, (limit, counter) in firsts.items()
        ]


class Standing(NamedTuple):
    """What a server says of one of its limits."""

    unit: Unit
    per_minute: float
    remaining: float
    reset_s: float


def retry_after(wording: Wording, wait_s: float, wall: float) -> dict[str, str]:
    """Give the header that asks to wait, never for less; `wall` is the time in epoch seconds."""
    match wording:
        case "seconds":
            return {"retry-after": str(ceil(wait_s))}
        case "ms":
            return {"retry-after-ms": str(ceil(1000 * wait_s)), "retry-after": str(ceil(wait_s))}
        case "date":
            return {"retry-after": format_datetime(datetime.fromtimestamp(ceil(wall + wait_s), UTC), usegmt=True)}
        case "none":
            return {}


def asked_s(wording: Wording, wait_s: float, wall: float) -> float:
    """Give for how long `retry_after` asks to wait."""
    match wording:
        case "seconds":
            return ceil(wait_s)
        case "ms":
            return ceil(1000 * wait_s) / 1000
        case "date":
            return ceil(wall + wait_s) - wall
        case "none":
            return 0.0


def stated(dialect: Dialect, standings: Iterable[Standing], wall: float) -> dict[str, str]:
    """Give the headers that say where the limits stand, as one provider or the other words them."""
    headers: dict[str, str] = {}
    for unit, per_minute, remaining, reset_s in standings:
        if dialect == "openai":
            headers[f"x-ratelimit-limit-{unit}"] = str(floor(per_minute))
            headers[f"x-ratelimit-remaining-{unit}"] = str(floor(remaining))
            headers[f"x-ratelimit-reset-{unit}"] = _duration(reset_s)
        elif dialect == "anthropic":
            at = datetime.fromtimestamp(ceil(wall + reset_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers[f"anthropic-ratelimit-{unit}-limit"] = str(floor(per_minute))
            headers[f"anthropic-ratelimit-{unit}-remaining"] = str(floor(remaining))
            headers[f"anthropic-ratelimit-{unit}-reset"] = at
    return headers


def _duration(seconds: float) -> str:
    """Word a time as OpenAI does: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{ceil(1000 * seconds)}ms"
    minutes, rest_s = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest_s}s" if minutes else f"{seconds:.3f}s"
