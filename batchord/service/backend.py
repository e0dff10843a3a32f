"""What a process of the API holds open: its state, its storage, its way to the fleet. The rules are beside it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from batchord.broker import create_producer, send
from batchord.errors import ConfigError, StateUnavailableError
from batchord.prices import Prices
from batchord.providers_file import load_routes
from batchord.reload import Watch, follow
from batchord.routing import Routes
from batchord.service.entry import Entry
from batchord.service.keys import configured_keys
from batchord.state.connection import State
from batchord.storage import Blobs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchord.broker import Step
    from batchord.settings import Settings


class Backend:
    """An async context manager, entered on the event loop that uses it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.adopt(_routes(settings, os.environ))
        self.keys = configured_keys(settings.api_keys)
        self.stopping = asyncio.Event()  # set when the process has been told to end: what waits for news gives up
        self._producer = create_producer(settings.redis_url)
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the clients; none of them speaks to the network yet."""
        self.state = State(self.settings.redis_url, self.settings.redis_timeout_s)
        self.blobs = Blobs(self.settings.blobs_url)
        self.entry = Entry(self.state)
        if self.settings.providers is not None:
            self._following = asyncio.create_task(follow(Watch(self.settings.providers, self.routes), self.adopt))
        return self

    def adopt(self, routes: Routes) -> None:
        """Go by these routes from now on."""
        self.routes = routes
        self.prices = Prices(routes.providers)

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        if self._following is not None:
            self._following.cancel()
        await self.state.aclose()
        self._producer.close()

    async def ask(self, step: Step, *args: str) -> None:
        """Send a step to the fleet; where the broker is away, the sweep sees to it later."""
        with suppress(StateUnavailableError):
            await asyncio.to_thread(send, self._producer, step, *args)


def _routes(settings: Settings, environ: Mapping[str, str]) -> Routes:
    """Give the configured providers; an API beside which no worker runs may know none."""
    if settings.providers is None:
        with suppress(ConfigError):
            return load_routes(settings, environ)
        return Routes([])
    return load_routes(settings, environ)
