"""What this process tells those who look on of what it does at each provider. Nothing is decided by it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from batchord.errors import UnavailableError
from batchord.state import reports
from batchord.state.reports import Report
from workers.meaning import Meaning, meaning_of
from workers.providers.seam import Response
from workers.rates import NO_RATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchord.state.connection import State
    from workers.providers.seam import ProviderError
    from workers.rates import Rates

_LOGGER = logging.getLogger(__name__)
_INTERVAL_S: Final = 1.0
_HEARTBEAT_S: Final = 5.0
_RATE_OVER_S: Final = 10.0


class Tally:
    """Counts the requests of this process to one provider. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.in_flight = self.sent = self.refused = self.failed = self.tokens = 0
        self._clock = clock
        self._marks = deque([(clock(), 0, 0)])

    def began(self) -> None:
        """Count a request that is being sent."""
        self.in_flight += 1
        self.sent += 1

    def ended(self, result: Response | ProviderError) -> None:
        """Count what became of one."""
        self.in_flight -= 1
        meaning = meaning_of(result)
        self.refused += meaning is Meaning.REFUSED
        self.failed += meaning in {Meaning.FAILED, Meaning.TIMED_OUT}
        if isinstance(result, Response):
            self.tokens += result.usage.total_tokens

    def dropped(self) -> None:
        """Count one of whose end nothing is known."""
        self.in_flight -= 1

    def report(self, worker: str, waiting: int, permits: int, allowed: Rates = NO_RATES) -> Report:
        """Give what there is to say; to be called every second or so, for the rates are those between calls."""
        requests, tokens = self._per_minute()
        return Report(
            worker=worker,
            in_flight=self.in_flight,
            waiting=waiting,
            permits=permits,
            sent=self.sent,
            rate_per_minute=requests,
            token_rate_per_minute=tokens,
            refused=self.refused,
            failed=self.failed,
            requests_per_minute=allowed.requests_per_minute,
            tokens_per_minute=allowed.tokens_per_minute,
        )

    def _per_minute(self) -> tuple[float, float]:
        """Give the requests and the tokens a minute of late."""
        now = self._clock()
        self._marks.append((now, self.sent, self.tokens))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _RATE_OVER_S:  # noqa: PLR2004 (two make a rate)
            self._marks.popleft()
        began_at, sent, tokens = self._marks[0]
        lasted_s = max(now - began_at, _INTERVAL_S)
        return round(60 * (self.sent - sent) / lasted_s, 1), round(60 * (self.tokens - tokens) / lasted_s, 1)


async def keep_reports(look: Callable[[], Mapping[str, Report]], state: State) -> None:
    """Report what `look` gives, by provider, every second until cancelled; what has not changed every 5 s only."""
    told: dict[str, Report] = {}
    told_at = float("-inf")
    while True:
        seen = dict(look())
        is_due = time.monotonic() - told_at >= _HEARTBEAT_S
        changed = {name: report for name, report in seen.items() if is_due or told.get(name) != report}
        if changed and await _write(changed, state):
            told |= changed
            told_at = time.monotonic() if is_due else told_at
        await asyncio.sleep(_INTERVAL_S)


async def _write(changed: Mapping[str, Report], state: State) -> bool:
    try:
        await state.run(reports.write(changed))
    except UnavailableError:
        return False  # the beat says in the log that Redis is away
    except Exception:  # a worker that stopped reporting would look as if it had died
        _LOGGER.exception("The report of this worker could not be written; the next one follows.")
        return False
    return True
