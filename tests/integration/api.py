"""The API in this process, over a real Valkey and a storage of the test's own, without any worker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from app import create_app
from batchord.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.service.backend import Backend
    from tests.integration.steps import Site, Sites


class Api(httpx2.AsyncClient):
    """A client of the API; `backend` is what the API holds open, for what a test must see behind it."""

    backend: Backend


@asynccontextmanager
async def open_api(redis_url: str, folder: Path, **settings: Any) -> AsyncIterator[Api]:
    """Run the API on this Redis, with the storage in this folder unless the settings have another one."""
    app = create_app(Settings(**{"redis_url": redis_url, "storage_url": (folder / "storage").as_uri(), **settings}))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), Api(transport=transport, base_url="http://127.0.0.1") as api:
        api.backend = app.state.backend
        yield api


@asynccontextmanager
async def site_and_api(sites: Sites, providers: Path, **settings: Any) -> AsyncIterator[tuple[Site, Api]]:
    """Give a fleet and the API on the same Redis and storage, with the same providers file."""
    async with (
        sites.new(providers=providers, **settings) as site,
        open_api(site.settings.redis_url, site.settings.data_dir, providers=providers) as api,
    ):
        yield site, api
