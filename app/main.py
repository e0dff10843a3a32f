"""The web application, made from settings; each resource is a module with a router. Nothing happens on import."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from app import analytics, batches, content, errors, events, files, health, models, providers, results, retry, uploads
from app.gate import Gate
from app.requests import BoundedBody, Traced
from batchord.service.backend import Backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Make the application; its connections are open while it runs.

    Raises:
        ConfigError: a setting cannot be used.
    """
    backend = Backend(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with backend as app.state.backend:
            yield

    app = FastAPI(
        title="batchord",
        summary="OpenAI's Files, Uploads and Batches API, for any LLM endpoint",
        version=version("batchord"),
        generate_unique_id_function=lambda route: route.name,  # the operations' names in /openapi.json
        lifespan=lifespan,
        responses=errors.ERROR_RESPONSES,
        redirect_slashes=False,  # a path that is not served is an error, in the envelope
        middleware=[  # the first is the outermost
            Middleware(Traced),
            Middleware(Gate),
            Middleware(BoundedBody, most_bytes=settings.max_body_bytes),
        ],
    )
    errors.install(app)
    app.include_router(health.router)
    app.include_router(files.router)
    app.include_router(content.router)
    app.include_router(uploads.router)
    app.include_router(batches.router)
    app.include_router(events.router)
    app.include_router(results.router)
    app.include_router(retry.router)
    app.include_router(analytics.router)
    app.include_router(models.router)
    app.include_router(providers.router)
    return app
