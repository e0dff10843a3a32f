"""What one process measures of one provider. Not for what follows from it (`workers/adaptive.py`), nor for display."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from batchord.state.concurrency import Sample
from workers.providers import Response
from workers.retry import is_final_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.permits import Permits
    from workers.providers import ProviderError

_NO_PLACE: Final = (503, 529)
_REQUEST_TIMEOUT: Final = 408
_OVERHEAD: Final = 20
"""What an answer is worth besides its output tokens, in tokens: the time before the first of them."""


class Samples:
    """Sums of a provider's answers since they were last taken; for one event loop. Costs a microsecond a request.

    An answer's work is its tokens, where they are said, so that requests that are merely long look no slower.
    """

    def __init__(self, permits: Permits, clock: Callable[[], float] = time.monotonic) -> None:
        self._permits = permits
        self._clock = clock
        self._in_flight = 0
        self._seen_at = clock()
        self._reset()

    @property
    def in_flight(self) -> int:
        """The requests that have been sent and not been answered."""
        return self._in_flight

    def began(self) -> None:
        """Note that a request is being sent."""
        self._pass_time()
        self._in_flight += 1

    def ended(self, result: Response | ProviderError, latency_s: float) -> None:
        """Note what became of it, and how long it took."""
        self.dropped()
        if not isinstance(result, Response):
            self._throttled += result.retry_after_s is not None
            if result.retry_after_s is None:
                self._fail(latency_s)
        elif result.is_success:
            self._answers += 1
            self._work += _OVERHEAD + result.usage.output_tokens
            self._latency_s += latency_s
        else:
            self._count_trouble(result, latency_s)

    def dropped(self) -> None:
        """Note that a request ended of which nothing can be learned."""
        self._pass_time()
        self._in_flight -= 1

    def take(self) -> Sample:
        """Give what was measured since the last time; nothing where nothing was in flight."""
        self._pass_time()
        room_s = self._room_s if self._busy_s else 0.0
        sample = Sample(
            self._answers,
            self._work,
            self._latency_s,
            self._busy_s,
            room_s,
            self._throttled,
            self._troubled,
            self._permits.kept,
        )
        self._reset()
        return sample

    def _count_trouble(self, response: Response, latency_s: float) -> None:
        status = response.status_code
        if status in _NO_PLACE or (response.is_throttled and not is_final_refusal(response)):
            self._permits.refuse()
        if response.is_throttled:
            self._throttled += not is_final_refusal(response)
        elif response.is_server_error or status == _REQUEST_TIMEOUT:
            self._fail(latency_s)

    def _fail(self, latency_s: float) -> None:
        """Count a failure; its time was a permit's, and brought nothing."""
        self._troubled += 1
        self._latency_s += latency_s

    def _pass_time(self) -> None:
        now = self._clock()
        passed_s = now - self._seen_at
        self._seen_at = now
        self._busy_s += passed_s * self._in_flight
        self._room_s += passed_s * self._permits.limit

    def _reset(self) -> None:
        self._answers = self._throttled = self._troubled = 0
        self._work = self._latency_s = self._busy_s = self._room_s = 0.0
