"""The web application, made from settings; each resource is a module with a router. Nothing happens on import."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import health
from batchord.service.backend import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Make the application; its connections are open while it runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Backend(settings) as app.state.backend:
            yield

    app = FastAPI(title="batchord", lifespan=lifespan)
    app.include_router(health.router)
    return app
