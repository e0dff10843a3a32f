"""What one worker process holds open while it runs: its clients, its providers and its desk, made on the event loop."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Self, TypeVar

from batchord.broker import provider_queue, send
from batchord.errors import UnavailableError
from batchord.prices import Prices
from batchord.routing import Routes
from batchord.settings import load_routes
from batchord.state import leases, reports, shares
from batchord.state.connection import State
from batchord.storage import Blobs
from workers.chords import publish
from workers.condition import Condition
from workers.copies import Watches
from workers.desk import Desk
from workers.gate import Gate
from workers.identity import new_name
from workers.inputs import Inputs
from workers.lanes import lanes
from workers.liveness import stay_alive
from workers.pace import Pace
from workers.permits import Permits, slots
from workers.providers import open_provider
from workers.quarantine import Quarantine
from workers.reporting import Tally
from workers.samples import Samples
from workers.transport_inflight import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable
    from types import TracebackType

    from celery import Celery

    from batchord.broker import Step
    from batchord.routing import Provider
    from batchord.settings import Settings
    from batchord.state.calls import Call
    from batchord.state.keys import Shard
    from batchord.state.reports import Report
    from workers.gate import Passage
    from workers.providers import ProviderClient


T = TypeVar("T")

_LEAVE_S: Final = 5.0


class Context:
    """An async context manager: entered on the loop before the first task, left after the last one."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.routes = load_routes(settings, os.environ)
        self.worker = new_name()
        self._open = AsyncExitStack()
        self.permits: dict[str, Permits] = {}
        self.samples: dict[str, Samples] = {}
        self.gates: dict[str, Gate] = {}
        self.conditions: dict[str, Condition] = {}
        for provider in self.routes.providers.values():
            self._open_gate(provider)
        self.prices = Prices(self.routes.providers)
        self.providers: dict[str, ProviderClient] = {}
        self._entering: set[asyncio.Task[Passage]] = set()

    async def __aenter__(self) -> Self:
        """Open every client; none of them speaks to the network yet."""
        self.draining = asyncio.Event()
        self.state = State(self.settings.redis_url, self.settings.redis_timeout_s)
        self._open.push_async_callback(self.state.aclose)
        self.blobs = Blobs(self.settings.blobs_url)
        self.desk = Desk(self.state, self.worker, self.settings.claim_s)
        self.inputs = Inputs(self.blobs)
        self.watches = Watches(self.state, self.blobs, self.draining, self.settings.claim_s)
        self._open.push_async_callback(self.watches.aclose)
        for name, provider in self.routes.providers.items():
            self._use(name, open_provider(provider, os.environ))
            self.resize(name, 0)
        self.quarantine = Quarantine(self.routes.every)
        self._open.push_async_callback(self.quarantine.aclose)
        self._beating = asyncio.create_task(stay_alive(self))
        return self

    async def send(self, step: Step, *args: str | int) -> None:
        """Send a step to the fleet's control queue.

        Raises:
            StateUnavailableError: the broker does not answer for now.
        """
        await asyncio.to_thread(send, self.app, step, *args)

    async def publish(self, shard: Shard, indices: Iterable[int]) -> None:
        """Publish lines of an open shard, one message each, and have the chord wait for them.

        Raises:
            StateUnavailableError: the broker does not answer for now; publishing again is harmless.
        """
        lines = {index: (*shard, index) for index in indices}
        await asyncio.to_thread(publish, self.app, shard.gid, lines, provider_queue(shard.provider), tuple(shard))

    def adopt(self, routes: Routes) -> None:
        """Go by other routes from now on; a provider that they do not name goes on answering the lines that wait."""
        changed = [provider for name, provider in routes.providers.items() if self.routes.every.get(name) != provider]
        clients = [open_provider(provider, os.environ) for provider in changed]  # first: it refuses what makes no sense
        retired = [provider for name, provider in self.routes.every.items() if name not in routes.providers]
        self.routes = Routes(list(routes.providers.values()), retired)
        for provider, client in zip(changed, clients, strict=True):
            self._open_gate(provider)
            self._use(provider.name, client)
        self.quarantine.adopt(self.routes.every)
        self.prices = Prices(self.routes.every)

    def _use(self, name: str, client: ProviderClient) -> None:
        """Ask a provider by a client; one whose place it takes answers what it was asked, and is closed at the end."""
        self._open.push_async_callback(client.aclose)
        self.providers[name] = client

    def _open_gate(self, provider: Provider) -> None:
        """Make a provider's gate, with no permits yet; where there is one, it goes by what the provider states now.

        Its own permits grow gradually if their limit is learned.
        """
        name, is_learned = provider.name, provider.max_concurrency is None
        for lane in lanes(provider).keys() - self.permits.keys():
            self.permits[lane] = Permits(0)
        self.permits[name].is_gradual = is_learned
        if name in self.gates:
            self.gates[name].adopt(provider)
            return
        self.samples[name] = Samples(self.permits[name])
        self.conditions[name] = Condition(provider, self.worker, self._run, self.settings.give_up_after_s)
        pace = Pace(provider, self._run)
        self._open.push_async_callback(pace.aclose)
        self.gates[name] = Gate(provider, self.conditions[name], pace, self.samples[name], Tally(), self.permits)

    async def _run(self, call: Call[T]) -> T:
        return await self.state.run(call)

    def entering(self, waiting: Coroutine[None, None, Passage]) -> asyncio.Task[Passage]:
        """Wait for a passage beside whatever else there is to do; a drain ends the wait."""
        task = asyncio.create_task(waiting)
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return task

    def reports(self) -> dict[str, Report]:
        """Give what this process does at each provider at the moment."""
        return {name: gate.report(self.worker) for name, gate in self.gates.items()}

    def resize(self, lane: str, limit: int) -> None:
        """Let this process have at most so many requests of a lane in flight at once.

        A provider's queue gives as many lines as it and those that help it can take.
        """
        self.permits[lane].resize(limit)
        for name in self.routes.every:
            helpers = self._helpers(name)
            if lane == name or lane in helpers:
                room = sum(self.permits[one].limit for one in (name, *helpers))
                IN_FLIGHT.set_slots(provider_queue(name), slots(room))

    def _helpers(self, name: str) -> Collection[str]:
        """Give who may answer lines of a provider's queue now: its peers, and its fallbacks while it is out."""
        peers, fallbacks = self.routes.helpers_of(name), self.routes.every[name].fallback
        return peers if self.conditions[name].is_clear else peers | (self.routes.every.keys() & fallbacks)

    def drain(self) -> None:
        """Begin to end: lines that are not being sent go back to their queues."""
        self.draining.set()
        self.quarantine.drain()
        for permits in self.permits.values():
            permits.drain()
        for entering in list(self._entering):
            entering.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what was claimed, and close every client; what Redis does not hear of ends by its time."""
        self._beating.cancel()
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self.desk.flush()
                leaving = [leases.leave(self.worker), shares.leave(self.worker, self.permits)]
                await self.state.run_all([*leaving, *reports.leave(self.worker, list(self.gates))])
        await self._open.aclose()
