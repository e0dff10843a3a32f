"""Analytics over HTTP of batches that in-process workers carry out against an upstream of known usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import new_batch_id
from batchord.lifecycle import Outcome
from batchord.state import shards
from batchord.state.keys import Shard
from batchord.state.shards import LineRecord
from tests.integration.api import site_and_api
from tests.integration.steps import BATCH, Sites, line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey
    from tests.integration.api import Api

# The upstream takes 3 input tokens, gives 2 output tokens, and answers after 1 ms, with headers after half of it.
PROVIDERS = """
[providers.one]
kind = "simulated"
models = ["one-*"]
max_attempts = 2
prices = { "one-model" = { input = 1000, output = 500 }, "one-free" = { input = 0, output = 0 } }

[providers.two]
kind = "simulated"
models = ["two-*"]
max_attempts = 2
"""


@pytest.fixture
def sites(valkey: EmbeddedValkey) -> Iterator[Sites]:
    with Sites(valkey.url) as sites:
        yield sites


@pytest.fixture
def providers(tmp_path: Path) -> Path:
    path = tmp_path / "providers.toml"
    path.write_text(PROVIDERS)
    return path


async def figures(api: Api, batch_id: str = BATCH) -> dict[str, Any]:
    answer = await api.get(f"/v1/batches/{batch_id}/analytics")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def having(found: dict[str, Any], **values: Any) -> dict[str, Any]:
    """Give what is found, but with these values."""
    return found | values


async def test_a_batch_of_two_models_has_the_exact_sums_of_each_and_of_both(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        lines = [line(f"ok-{n}") for n in range(5)] + [line("bad-5"), line("broken-6"), line("ok-7", "two")]
        site.submit(lines)
        await site.drive(at_once=3)
        found = await figures(api)
    assert (found["object"], found["batch_id"]) == ("batch.analytics", BATCH)
    one, two = found["models"]
    assert one == having(
        one,
        provider="one",
        model="one-model",
        requests=7,
        succeeded=5,
        failed=2,
        cancelled=0,
        expired=0,
        prompt_tokens=18,
        completion_tokens=12,
        cached_tokens=0,
        reasoning_tokens=0,
        total_tokens=30,
        cost=pytest.approx(6 * (3 * 1000 + 2 * 500) / 1e6),
        currency="USD",
    )
    assert two == having(two, provider="two", model="two-model", requests=1, succeeded=1, total_tokens=5, cost=None)
    assert found["total"] == having(
        found["total"], requests=8, succeeded=6, failed=2, prompt_tokens=21, total_tokens=35
    )


async def test_one_answer_without_a_price_makes_the_cost_unknown_and_not_lower(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line("ok-1"), line("ok-2", model="one-free"), line("ok-3", "two")])
        await site.drive()
        found = await figures(api)
    assert found["total"] == having(found["total"], cost=None, priced_cost=0.004, currency="USD")
    costs = {each["model"]: (each["cost"], each["priced_cost"]) for each in found["models"]}
    assert costs == {"one-model": (0.004, 0.004), "one-free": (0.0, 0.0), "two-model": (None, 0.0)}


async def test_a_batch_of_priced_answers_has_a_cost(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line("ok-1"), line("ok-2", model="one-free"), line("broken-3", "two")])
        await site.drive()
        total = (await figures(api))["total"]
    assert (total["cost"], total["priced_cost"]) == (0.004, 0.004)


async def test_times_are_of_the_answers(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line(f"ok-{n}") for n in range(3)] + [line("broken-3", "two")])
        await site.drive()
        found = await figures(api)
    around_1_ms = {"p50": pytest.approx(1, abs=0.1), "p95": pytest.approx(1, abs=0.1)}
    one, two = found["models"]
    assert one == having(one, latency_ms=around_1_ms, time_to_first_byte_ms=around_1_ms)
    nothing = {"p50": None, "p95": None}
    assert two == having(two, requests=1, failed=1, latency_ms=nothing, time_to_first_byte_ms=nothing, cost=0.0)


async def test_an_answer_that_comes_after_another_is_told_apart(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line("ok-1")])
        await site.drive()
        before = await figures(api)
        stopped = LineRecord(0, Outcome.SUCCEEDED, b"what a worker brings that had stood still")
        site.client.state.run(shards.record(Shard(BATCH, "one", 0), "stopped", 30, [stopped]))
        after = await figures(api)
    assert (before["late_answers"], after["late_answers"]) == (0, 1)
    assert after["total"] == before["total"]


async def test_the_model_is_the_one_at_the_provider(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line("ok-1", model="two:x|y/z:8b")])
        await site.drive()
        found = await figures(api)
    assert [(each["provider"], each["model"]) for each in found["models"]] == [("two", "x|y/z:8b")]


async def test_analytics_grow_while_the_batch_runs(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line(f"ok-{n}") for n in range(3)])
        before = await figures(api)
        await site.carry_out(await site.until(Step.EXECUTE))
        between = await figures(api)
        await site.drive()
        after = await figures(api)
    assert before["models"] == []
    assert before["total"] == having(before["total"], requests=0, cost=0.0, latency_ms={"p50": None, "p95": None})
    assert [found["total"]["total_tokens"] for found in (before, between, after)] == [0, 5, 15]


async def test_lines_of_a_cancelled_batch_count_without_a_cost(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line(f"ok-{n}", "two") for n in range(3)])
        message = await site.until(Step.EXECUTE)
        site.cancel()
        await site.carry_out(message)
        await site.drive()
        total = (await figures(api))["total"]
    assert total == having(total, requests=3, cancelled=3, succeeded=0, total_tokens=0, cost=0.0)


@pytest.mark.parametrize("seed", range(3))
async def test_lost_and_repeated_messages_change_no_sum(sites: Sites, providers: Path, seed: int) -> None:
    async with site_and_api(sites, providers, seed=seed, workers=2) as (site, api):
        site.submit([line(f"ok-{n}", ("one", "two")[n % 2]) for n in range(8)])
        await site.drive(at_once=3, lose=0.2, repeat=0.3)
        found = await figures(api)
        usage = site.record().batch.usage
    assert found["total"] == having(found["total"], requests=8, succeeded=8, total_tokens=usage.total_tokens)
    assert [each["total_tokens"] for each in found["models"]] == [20, 20]
    assert usage.total_tokens == 40


async def test_an_unknown_batch_has_no_analytics(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (_, api):
        answer = await api.get(f"/v1/batches/{new_batch_id()}/analytics")
    assert answer.status_code == 404


async def test_a_retry_adds_what_it_took(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        site.submit([line("ok-1"), line("bad-2")])
        await site.drive()
        assert (await api.post(f"/v1/batches/{BATCH}/retry")).status_code == 200
        await site.drive()
        found = await figures(api)
    assert found["total"] == having(found["total"], requests=3, succeeded=1, failed=2, total_tokens=15, cost=0.012)
