"""The web application, made from settings; each resource is a module with a router. Nothing happens on import."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import health
from batchord.state.connection import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Make the application; its connections are open while it runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.redis = State(settings.redis_url)
        yield
        await app.state.redis.aclose()

    app = FastAPI(title="batchord", lifespan=lifespan)
    app.include_router(health.router)
    return app
