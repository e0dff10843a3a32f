"""What one worker process holds open while it runs: its clients, its providers and its desk, made on the event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, Self
from uuid import uuid4

from batchord.broker import provider_queue, send
from batchord.errors import UnavailableError
from batchord.prices import Prices
from batchord.settings import load_routes
from batchord.state import leases, shares
from batchord.state.connection import State
from batchord.storage import Blobs
from workers.chords import publish
from workers.desk import Desk
from workers.inputs import Inputs
from workers.liveness import stay_alive
from workers.permits import Permits, slots
from workers.providers import open_provider
from workers.quarantine import Quarantine
from workers.transport_inflight import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from celery import Celery

    from batchord.broker import Step
    from batchord.settings import Settings
    from batchord.state.keys import Shard
    from workers.providers import ProviderClient


_LEAVE_S: Final = 5.0


class Context:
    """An async context manager: entered on the loop before the first task, left after the last one."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.routes = load_routes(settings, os.environ)
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self.permits = {name: Permits(0) for name in self.routes.providers}
        self.prices = Prices(self.routes.providers)
        self.providers: dict[str, ProviderClient] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open every client; none of them speaks to the network yet."""
        self.draining = asyncio.Event()
        self.state = State(self.settings.redis_url, self.settings.redis_timeout_s)
        self._open.push_async_callback(self.state.aclose)
        self.blobs = Blobs(self.settings.blobs_url)
        self.desk = Desk(self.state, self.worker, self.settings.claim_s)
        self.inputs = Inputs(self.blobs)
        for name, provider in self.routes.providers.items():
            self.providers[name] = open_provider(provider, os.environ)
            self._open.push_async_callback(self.providers[name].aclose)
            self.resize(name, 0)
        self.quarantine = Quarantine(self.routes.providers)
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

    def resize(self, provider: str, limit: int) -> None:
        """Let this process send at most so many requests to a provider at once."""
        self.permits[provider].resize(limit)
        IN_FLIGHT.set_slots(provider_queue(provider), slots(limit))

    def drain(self) -> None:
        """Begin to end: lines that are not being sent go back to their queues."""
        self.draining.set()
        self.quarantine.drain()
        for permits in self.permits.values():
            permits.drain()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what was claimed, and close every client; what Redis does not hear of ends by its time."""
        self._beating.cancel()
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self.desk.flush()
                await self.state.run_all([leases.leave(self.worker), shares.leave(self.worker, self.permits)])
        await self._open.aclose()
