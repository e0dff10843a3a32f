"""A provider's server that has true limits, pauses, outages and a capacity, and remembers what they met. For tests.

In a test, in a thread of its own:

    terms = Terms(limits=[Limit(kind="sliding", limit=100, window_s=2)], retry_after="seconds")
    with serving(LimitedUpstream(terms)) as upstream:
        ...  # then send requests to upstream.url
        assert upstream.refused == 0

In a process of its own, `python -m tests.limited_upstream --terms JSON` prints its base URL as its first line.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Literal, NamedTuple
from zlib import crc32

import msgspec

from tests.limits import Admission, Dialect, Limit, Wording, asked_s, retry_after, stated
from tests.upstream import Rule, Seen, Upstream, serve_until_signalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Refusal = Literal[429, 503]
_BYTES_A_TOKEN = 4


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the server can do at a time. Of a request beyond it, it lets `waiting` wait and refuses the others.

    A server that `slows` has no end, but every answer takes as many times longer as there are requests for a place.
    """

    places: int
    waiting: int = 0
    refusal: Refusal = 429
    slows: bool = False


class Pause(msgspec.Struct, frozen=True):
    """After so many requests the server refuses all others for so long, and asks to be left alone until then."""

    after: int
    for_s: float


class Outage(msgspec.Struct, frozen=True):
    """From so long after the first request, for so long, this happens to every request."""

    rule: Rule
    for_s: float
    after_s: float = 0.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """All that a server allows, and how it says so. Latencies are spread evenly between two, as the bodies decide.

    Where `output_tokens` are given, input is reported as a token for 4 bytes, and output as something between the two.
    """

    limits: tuple[Limit, ...] = ()
    retry_after: Wording = "none"
    stated: Dialect = "none"
    capacity: Capacity | None = None
    pauses: tuple[Pause, ...] = ()
    outages: tuple[Outage, ...] = ()
    latency_s: tuple[float, float] = (0.0, 0.0)
    output_tokens: tuple[int, int] | None = None


class Asked(NamedTuple):
    """When the server asked to be left alone, and until when; monotonic."""

    at: float
    until: float


class LimitedUpstream(Upstream):
    """A server that keeps its terms; `asked` are the pauses that it asked for."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        super().__init__()

    def reset(self) -> None:
        """Forget every rule and every request so far, and what they used."""
        super().reset()
        self.asked: list[Asked] = []
        self._admission = Admission(self.terms.limits)
        self._pauses = list(self.terms.pauses)
        self._paused_until = 0.0
        capacity = self.terms.capacity
        self._places = asyncio.Semaphore(capacity.places) if capacity and not capacity.slows else nullcontext()
        self._held = 0

    @property
    def refused(self) -> int:
        """How many requests it answered with 429."""
        return sum(seen.status == 429 for seen in self.requests)

    @asynccontextmanager
    async def admitted(self, seen: Seen) -> AsyncIterator[Rule]:
        """Let a request in as the terms allow, and hold its place."""
        refusal = self._outage(seen) or self._pause(seen) or self._overload() or self._limited(seen)
        if refusal:
            yield refusal
            return
        rule = self._told(seen, self.rule_for(seen))
        self._held += 1
        try:
            async with self._places:
                await asyncio.sleep(self._latency_s(seen))
                yield rule
        finally:
            self._held -= 1

    def _outage(self, seen: Seen) -> Rule | None:
        since_s = seen.started_s - self.requests[0].started_s
        under_way = (out.rule for out in self.terms.outages if out.after_s <= since_s < out.after_s + out.for_s)
        return next(under_way, None)

    def _pause(self, seen: Seen) -> Rule | None:
        if self._pauses and len(self.requests) > self._pauses[0].after:
            self._paused_until = seen.started_s + self._pauses.pop(0).for_s
        rest_s = self._paused_until - seen.started_s
        return self._refusal(rest_s) if rest_s > 0 else None

    def _overload(self) -> Rule | None:
        capacity = self.terms.capacity
        if capacity is None or capacity.slows or self._held < capacity.places + capacity.waiting:
            return None
        return self._refusal(1.0) if capacity.refusal == 429 else Rule(status=capacity.refusal)

    def _limited(self, seen: Seen) -> Rule | None:
        wait_s = self._admission.ask(sum(self._tokens(seen)), seen.started_s)
        return self._told(seen, self._refusal(wait_s)) if wait_s else None

    def _refusal(self, wait_s: float) -> Rule:
        """Refuse, and note what is asked, if anything is."""
        now, wall, wording = time.monotonic(), time.time(), self.terms.retry_after
        if wording != "none":
            self.asked.append(Asked(now, now + asked_s(wording, wait_s, wall)))
        return Rule(status=429, headers=retry_after(wording, wait_s, wall))

    def _told(self, seen: Seen, rule: Rule) -> Rule:
        """Add what the server tells of itself with every answer."""
        headers = stated(self.terms.stated, self._admission.standings(seen.started_s), time.time())
        usage = rule.usage or (self._tokens(seen) if self.terms.output_tokens else None)
        return msgspec.structs.replace(rule, headers={**headers, **rule.headers}, usage=usage)

    def _tokens(self, seen: Seen) -> tuple[int, int]:
        low, high = self.terms.output_tokens or (0, 0)
        return len(seen.body) // _BYTES_A_TOKEN, low + crc32(seen.body.encode()) % (high - low + 1)

    def _latency_s(self, seen: Seen) -> float:
        low_s, high_s = self.terms.latency_s
        latency_s = low_s + (high_s - low_s) * crc32(seen.body.encode()) / 2**32
        capacity = self.terms.capacity
        return latency_s * max(1.0, self._held / capacity.places) if capacity and capacity.slows else latency_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--terms", default="{}", help="as JSON")
    options = parser.parse_args()
    limited = LimitedUpstream(msgspec.json.decode(options.terms, type=Terms))
    asyncio.run(serve_until_signalled(limited, options.port))
