"""`/v1/models`: what the providers serve, as configured and as they say themselves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from batchord.settings import Settings
from batchord.state import catalogue, keys, leases
from tests.integration.api import open_api
from workers.catalogue import refresh
from workers.celery_app import create_celery
from workers.context import Context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey
    from tests.integration.api import Api
    from tests.upstream import Upstream

PROVIDERS = """
[providers.local]
base_url = "{url}"
models = ["llama-*", "exact", "org/model:7b"]

[providers.rest]
base_url = "{url}"
models = ["*-mini", "exact", "llama-[23]"]

[providers.simulated]
kind = "simulated"
models = ["simulated-1"]
"""
CONFIGURED = {"exact": "local", "org/model:7b": "local", "simulated-1": "simulated"}


@pytest.fixture
def settings(valkey: EmbeddedValkey, upstream: Upstream, tmp_path: Path) -> Settings:
    path = tmp_path / "providers.toml"
    path.write_text(PROVIDERS.format(url=upstream.url))
    return Settings(redis_url=valkey.url, providers=path, data_dir=tmp_path)


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Context]:
    """Give what a worker process holds open; it beats."""
    app = create_celery(settings)
    try:
        async with Context(app, settings) as context:
            yield context
    finally:
        app.backend.client.close()
        app.close()


async def ask_providers(settings: Settings) -> None:
    """Have a worker ask the providers, once."""
    async with working(settings) as context:
        context._beating.cancel()
        await refresh(context)


async def served(api: Api) -> dict[str, str]:
    answer = await api.get("/v1/models")
    assert answer.status_code == 200, answer.text
    assert answer.json()["object"] == "list"
    assert all((each["object"], each["created"]) == ("model", 0) for each in answer.json()["data"])
    return {each["id"]: each["owned_by"] for each in answer.json()["data"]}


def serving(settings: Settings, folder: Path) -> AbstractAsyncContextManager[Api]:
    return open_api(settings.redis_url, folder, providers=settings.providers)


async def test_models_that_the_configuration_names_are_served_before_any_worker_runs(
    settings: Settings, tmp_path: Path
) -> None:
    async with serving(settings, tmp_path) as api:
        assert await served(api) == CONFIGURED


async def test_what_a_provider_lists_is_served_where_its_globs_admit_it(
    settings: Settings, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.models = ["llama-3", "gpt-mini", "other", "exact"]
    await ask_providers(settings)
    async with serving(settings, tmp_path) as api:
        assert await served(api) == CONFIGURED | {"llama-3": "local", "gpt-mini": "rest"}


async def test_a_provider_that_does_not_answer_keeps_what_it_listed(
    settings: Settings, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.models = ["llama-3"]
    await ask_providers(settings)
    upstream.models = []
    await ask_providers(settings)
    async with serving(settings, tmp_path) as api:
        assert "llama-3" in await served(api)


async def test_a_new_list_replaces_the_old_one(settings: Settings, upstream: Upstream, tmp_path: Path) -> None:
    for models in (["llama-3"], ["llama-4"]):
        upstream.models = models
        await ask_providers(settings)
    async with serving(settings, tmp_path) as api:
        assert await served(api) == CONFIGURED | {"llama-4": "local"}


async def test_what_a_provider_lists_that_is_not_configured_any_more_is_not_served(
    settings: Settings, tmp_path: Path
) -> None:
    async with serving(settings, tmp_path) as api:
        await api.backend.state.run(catalogue.write("gone", ["ghost"]))
        assert await served(api) == CONFIGURED


@pytest.mark.parametrize("model", ["exact", "org/model:7b"])
async def test_one_model_is_given_by_its_name(settings: Settings, tmp_path: Path, model: str) -> None:
    async with serving(settings, tmp_path) as api:
        answer = await api.get(f"/v1/models/{model}")
    assert answer.status_code == 200
    assert answer.json() == {"id": model, "object": "model", "created": 0, "owned_by": "local"}


async def test_an_unknown_model_is_refused_in_openais_words(settings: Settings, tmp_path: Path) -> None:
    async with serving(settings, tmp_path) as api:
        answer = await api.get("/v1/models/no/such")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "The model 'no/such' does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_a_worker_asks_by_itself_for_the_whole_fleet(
    settings: Settings, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.models = ["llama-3"]
    async with working(settings) as context, serving(settings, tmp_path) as api, asyncio.timeout(10):
        while not await context.state.run(catalogue.read()):  # noqa: ASYNC110  (Redis tells nobody)
            await asyncio.sleep(0.005)
        assert await served(api) == CONFIGURED | {"llama-3": "local"}
        assert not await context.state.run(leases.take(keys.CATALOGUE_LEASE, "another worker", 300))
