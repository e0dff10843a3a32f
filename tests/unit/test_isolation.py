"""One provider's trouble costs another one nothing: a worker's slots, gates and permits, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from batchord.contract import NO_USAGE
from batchord.routing import Provider
from tests.unit import virtual_time
from tests.unit.virtual_time import ClockedState
from workers.condition import Condition
from workers.gate import Gate
from workers.pace import Pace
from workers.permits import Permits, slots
from workers.providers import ProviderError, Response
from workers.reporting import Tally
from workers.samples import Samples
from workers.transport_inflight import InFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchord.state.calls import Call

T = TypeVar("T")

LINES: Final = 200
PERMITS: Final = 8
FETCH_LIMIT: Final = 50
OK: Final = Response(200, b"{}", "", NO_USAGE, None, 1, 1)


async def answers() -> Response:
    await asyncio.sleep(0.05)
    return OK


async def hangs() -> Response:
    await asyncio.sleep(3_600)
    return OK


async def crawls() -> Response:
    await asyncio.sleep(20)
    return OK


async def asks_for_a_pause() -> Response:
    await asyncio.sleep(0.05)
    return Response(429, b"{}", "", NO_USAGE, 600.0, 1, 1)


async def refuses_connections() -> ProviderError:
    return ProviderError("connection_error", "connection refused", is_unsent=True)


class Worker:
    """What of a worker decides when a line is sent: it fetches what its slots hold and sends what its gates let go."""

    def __init__(self, **upstreams: Callable[[], Awaitable[Response | ProviderError]]) -> None:
        self.in_flight, self.state = InFlight(), ClockedState()
        self.upstreams = upstreams
        self.queues = {name: deque(f"{name}-{number}" for number in range(LINES)) for name in upstreams}
        self.gates = {
            name: self._gate(Provider(name=name, kind="simulated", rate_headers="none")) for name in upstreams
        }
        self.ended_at: dict[str, float] = {}
        self._sending: set[asyncio.Task[None]] = set()
        for name in upstreams:
            self.in_flight.set_slots(name, slots(PERMITS))

    def _gate(self, config: Provider) -> Gate:
        permits = {config.name: Permits(PERMITS)}
        condition = Condition(config, "w", self._run, None, lambda: asyncio.get_running_loop().time())
        return Gate(config, condition, Pace(config, self._run), Samples(permits[config.name]), Tally(), permits)

    async def _run(self, call: Call[T]) -> T:
        self.state.now = 1_700_000_000.0 + asyncio.get_running_loop().time()
        return self.state.run(call)

    async def works_off(self, queue: str) -> float:
        """Give when the last line of a queue was answered."""
        while len([line for line in self.ended_at if line.startswith(queue)]) < LINES:
            for name, waiting in self.queues.items():
                for line in list(islice(waiting, min(FETCH_LIMIT, self.in_flight.free(name)))):
                    waiting.popleft()
                    self.in_flight.begin(line, name)
                    self._sending.add(asyncio.create_task(self._send(name, line)))
            await asyncio.sleep(0.01)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        for gate in self.gates.values():
            gate.condition.close()
        return max(self.ended_at[line] for line in self.ended_at if line.startswith(queue))

    async def _send(self, name: str, line: str) -> None:
        while line not in self.ended_at:
            passage = await self.gates[name].enter("m", b"{}")
            passage.send()
            result = await self.upstreams[name]()
            passage.sent(result)
            if result is OK:
                self.ended_at[line] = asyncio.get_running_loop().time()
                self.in_flight.ack(line)
            else:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("trouble", [hangs, crawls, asks_for_a_pause, refuses_connections], ids=lambda it: it.__name__)
def test_a_provider_is_as_fast_beside_one_in_trouble_as_alone(
    trouble: Callable[[], Awaitable[Response | ProviderError]],
) -> None:
    async def took_s(**upstreams: Callable[[], Awaitable[Response | ProviderError]]) -> float:
        return await Worker(**upstreams).works_off("well")

    alone = virtual_time.run(lambda: took_s(well=answers))
    beside = virtual_time.run(lambda: took_s(ill=trouble, well=answers))
    assert beside == pytest.approx(alone, rel=0.01)
