"""Workers with more lines than time before a provider of unknown capacity, by a clock that only moves on events."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from batchord.contract import Usage
from batchord.state.concurrency import Sample
from workers.adaptive import Course, advance
from workers.permits import Permits
from workers.providers import Response
from workers.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Callable

SHARING_S: Final = 0.3
PAUSE_S: Final = 1.0
"""For how long the fleet sends nothing after a bare 429."""
_REFUSAL_S: Final = 0.005


@dataclass
class Clock:
    """What happens when: `now` is the time of the event that happens."""

    now: float = 1_000.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: count[int] = field(default_factory=count)

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), event))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end


class Server:
    """A provider that takes `places` requests at once and lets all others wait; `service_s` is how long one takes."""

    def __init__(self, clock: Clock, places: int, service_s: Callable[[], float]) -> None:
        self.clock, self.places, self.service_s = clock, places, service_s
        self.in_flight = 0
        self.most_in_flight = 0
        self._queue: deque[Callable[[int], None]] = deque()

    def send(self, answer: Callable[[int], None]) -> None:
        """Take a request; `answer` is called with the status."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._take(answer)

    def _take(self, answer: Callable[[int], None]) -> None:
        if self.in_flight > self.places:
            self._queue.append(answer)
        else:
            self._answer(answer, 200, self.service_s())

    def _answer(self, answer: Callable[[int], None], status: int, after_s: float) -> None:
        self.clock.after(after_s, lambda: self._end(answer, status))

    def _end(self, answer: Callable[[int], None], status: int) -> None:
        self.in_flight -= 1
        if self._queue:
            self._answer(self._queue.popleft(), 200, self.service_s())
        answer(status)


class Refusing(Server):
    """It has no queue, but a status for whom it has no place."""

    status = 429

    def _take(self, answer: Callable[[int], None]) -> None:
        if self.in_flight > self.places:
            self._answer(answer, self.status, _REFUSAL_S)
        else:
            self._answer(answer, 200, self.service_s())


class Unavailable(Refusing):
    """Its status is none that pauses a provider."""

    status = 503


class Failing(Refusing):
    """Its status says nothing of a load that is too high."""

    status = 500


class Sharing(Server):
    """All requests share what it can do: it has no queue, but slows down in proportion to its load past `places`."""

    def _take(self, answer: Callable[[int], None]) -> None:
        self._answer(answer, 200, self.service_s() * max(1.0, self.in_flight / self.places))


class Slowing(Server):
    """Each request slows all others down, from the first one on; `places` is how many double the latency."""

    def _take(self, answer: Callable[[int], None]) -> None:
        self._answer(answer, 200, self.service_s() * (1 + self.in_flight / self.places))


class Faulty(Server):
    """One answer in two hundred is a 500, for no reason."""

    def _take(self, answer: Callable[[int], None]) -> None:
        self._answer(answer, 500 if random.Random(self.clock.now).random() < 0.005 else 200, self.service_s())


class Flaky(Server):
    """It fails a share of the requests, however many there are."""

    share = 0.0

    def _answer(self, answer: Callable[[int], None], status: int, after_s: float) -> None:
        chance = random.Random(self.clock.now + after_s).random()
        super()._answer(answer, 500 if chance < self.share else status, after_s)


class Fleet:
    """Workers that send as many requests as their parts of the limit allow, and share as `workers.shares` does."""

    def __init__(self, clock: Clock, server: Server, workers: int, most: int = 1_000) -> None:
        self.clock, self.server, self.most = clock, server, most
        self.course = Course()
        self.answered: Counter[int] = Counter()
        self.limits: list[int] = []
        self.paused_until = 0.0
        self.tokens = 0
        self.waiting = 10**9
        self._pending = Sample()
        self._turn_at = 0.0
        self.workers = [Worker(self) for _ in range(workers)]
        for number, worker in enumerate(self.workers):
            clock.after(SHARING_S * number / workers, worker.share)

    def report(self, sample: Sample) -> None:
        """Add a sample; find the next limit if it is time to."""
        now, self._pending = self.clock.now, self._pending.plus(sample)
        if sum(self._pending[:1] + self._pending[5:7]) and now >= self._turn_at + SHARING_S - 1e-9:
            self.course = advance(self.course, self._pending, now, self.most)
            self.limits.append(self.course.limit)
            self._pending, self._turn_at = Sample(), now

    def part(self, own: Worker) -> int:
        """Give a worker an equal part, but no more than the others leave."""
        taken = sum(worker.permits.most_held for worker in self.workers if worker is not own)
        return max(0, min(-(-self.course.limit // len(self.workers)), self.course.limit - taken))

    def pause(self) -> None:
        self.paused_until = self.clock.now + PAUSE_S
        for worker in self.workers:
            self.clock.after(PAUSE_S, worker.send)

    def rate(self, seconds: float) -> float:
        """Let time pass; give the good answers a second."""
        before = self.answered[200]
        self.clock.run(seconds)
        return (self.answered[200] - before) / seconds


class Worker:
    """One worker's permits and samples."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.permits = Permits(0, gradual=True)
        self.samples = Samples(self.permits, lambda: fleet.clock.now)

    def share(self) -> None:
        self.fleet.report(self.samples.take())
        self.permits.resize(self.fleet.part(self))
        self.fleet.clock.after(SHARING_S, self.share)
        self.send()

    def send(self) -> None:
        fleet = self.fleet
        while fleet.waiting > 0 and fleet.clock.now >= fleet.paused_until and self.permits.try_take():
            fleet.waiting -= 1
            self.samples.began()
            sent_at = fleet.clock.now
            fleet.server.send(lambda status, sent_at=sent_at: self.answered(status, sent_at))  # type: ignore[misc]

    def answered(self, status: int, sent_at: float) -> None:
        fleet = self.fleet
        fleet.answered[status] += 1
        usage = Usage(output_tokens=fleet.tokens)
        latency_s = fleet.clock.now - sent_at
        self.samples.ended(Response(status, b"{}", "", usage, None, latency_s * 1000, 0), latency_s)
        self.permits.give_back()
        if status == 429:
            if fleet.clock.now >= fleet.paused_until:
                fleet.pause()
        else:
            self.send()


def lasting(seed: int, least_s: float, most_s: float) -> Callable[[], float]:
    """Give latencies, evenly spread between two."""
    chance = random.Random(seed)
    return lambda: chance.uniform(least_s, most_s)


def varying(seed: int, mean_s: float) -> Callable[[], float]:
    """Give latencies that vary by ten times and more, as answers of very different length do."""
    chance = random.Random(seed)
    return lambda: min(10 * mean_s, chance.expovariate(1 / mean_s))
