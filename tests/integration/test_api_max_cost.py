"""Batches with a budget over HTTP, carried out against an upstream whose answers all cost the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from batchord.lifecycle import Status
from tests.integration.api import site_and_api
from tests.integration.steps import ENDPOINT, Sites, line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.api import Api
    from tests.integration.steps import Site

ANSWER_COST = 0.004
"""Of 3 tokens in and 2 out."""
PROVIDERS = """
[providers.one]
kind = "simulated"
models = ["one-*"]
prices = { "one-*" = { input = 1000, output = 500 } }

[providers.two]
kind = "simulated"
models = ["two-*"]
"""
LINES = [line(f"ok-{number}") for number in range(10)]
REACHED = {
    "code": "max_cost_reached",
    "message": "This request was not executed because the batch had reached its max_cost.",
}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def providers(tmp_path: Path) -> Path:
    path = tmp_path / "providers.toml"
    path.write_text(PROVIDERS)
    return path


async def create(api: Api, lines: list[dict[str, Any]], **terms: Any) -> dict[str, Any]:
    body = {"requests": lines, "endpoint": ENDPOINT, "completion_window": "24h", **terms}
    answer = await api.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


async def read(api: Api, path: str) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(path)).json()
    return found


async def test_nothing_is_sent_past_the_budget_and_the_rest_says_why(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, LINES, max_cost=3 * ANSWER_COST)
        assert batch["max_cost"] == 3 * ANSWER_COST
        await site.drive()
        batch = await read(api, f"/v1/batches/{batch['id']}")
        assert batch["status"] == Status.COMPLETED
        assert batch["request_counts"] == {"total": 10, "completed": 3, "failed": 7}
        assert len(site.upstream.calls) == 3
        errors = [json.loads(raw) for raw in (site.result(batch["id"]).errors or b"").splitlines()]
        assert [each["error"] for each in errors] == [REACHED] * 7
        assert sorted(site.upstream.calls + [each["custom_id"] for each in errors]) == [f"ok-{n}" for n in range(10)]
        analytics = await read(api, f"/v1/batches/{batch['id']}/analytics")
        assert (analytics["max_cost"], analytics["max_cost_reached"]) == (3 * ANSWER_COST, True)
        assert analytics["total"]["cost"] == pytest.approx(3 * ANSWER_COST)
        site.assert_tidy(batch["id"])


async def test_requests_in_flight_may_pass_the_budget_and_nothing_after_them(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, LINES, max_cost=ANSWER_COST / 2)
        await site.drive(at_once=2)
        assert 1 <= site.result(batch["id"]).counts["completed"] == len(site.upstream.calls) <= 2


async def test_a_retry_with_a_higher_budget_sends_what_was_not_sent(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, LINES, max_cost=3 * ANSWER_COST)
        await site.drive()
        path = f"/v1/batches/{batch['id']}"
        for body in (None, {"max_cost": 2 * ANSWER_COST}):
            refused = await api.post(f"{path}/retry", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_cost")
        retried = await api.post(f"{path}/retry", json={"max_cost": 5 * ANSWER_COST})
        assert retried.json()["max_cost"] == 5 * ANSWER_COST
        await site.drive()
        assert (await read(api, path))["request_counts"] == {"total": 10, "completed": 5, "failed": 5}
        await api.post(f"{path}/retry-requests", json={"max_cost": 1, "custom_ids": await left(site, batch["id"])})
        await site.drive()
        assert (await read(api, path))["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
        assert sorted(site.upstream.calls) == [f"ok-{number}" for number in range(10)]
        analytics = await read(api, f"{path}/analytics")
        assert analytics["max_cost_reached"] is False
        assert analytics["total"]["cost"] == pytest.approx(10 * ANSWER_COST)


async def left(site: Site, batch_id: str) -> list[str]:
    return [custom_id for custom_id, code in site.result(batch_id).unsuccessful if code == "max_cost_reached"]


async def test_a_model_of_unknown_price_cannot_have_a_budget(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, [*LINES[:2], line("ok-x", "two")], max_cost=1)
        await site.drive()
        batch = await read(api, f"/v1/batches/{batch['id']}")
        (problem,) = batch["errors"]["data"]
        assert batch["status"] == Status.FAILED
        assert (problem["code"], problem["param"], problem["line"]) == ("unknown_price", "body.model", 3)
        assert "'two-model'" in problem["message"]
        (summary,) = [each.summary for each in site.record(batch["id"]).batch.errors]
        assert "add it to prices of provider two" in summary
        assert site.upstream.calls == []


async def test_a_retry_cannot_bring_a_budget_for_a_model_of_unknown_price(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, [line("bad-1", "two")])
        await site.drive()
        before = await read(api, f"/v1/batches/{batch['id']}")
        assert (await api.post(f"/v1/batches/{batch['id']}/retry", json={"max_cost": 1})).status_code == 200
        await site.drive()
        assert await read(api, f"/v1/batches/{batch['id']}") == before
        assert site.upstream.calls == ["bad-1"]


async def test_a_batch_without_a_budget_does_not_speak_of_one(sites: Sites, providers: Path) -> None:
    async with site_and_api(sites, providers) as (site, api):
        batch = await create(api, LINES)
        assert "max_cost" not in batch
        await site.drive()
        assert len(site.upstream.calls) == 10
        assert not {"max_cost", "max_cost_reached"} & (await read(api, f"/v1/batches/{batch['id']}/analytics")).keys()


@pytest.mark.parametrize("max_cost", [0, -1, "5", True, 1e10, [1]])
async def test_a_budget_that_is_none_is_a_bad_request(sites: Sites, providers: Path, max_cost: Any) -> None:
    async with site_and_api(sites, providers) as (_, api):
        body = {"requests": LINES, "endpoint": ENDPOINT, "completion_window": "24h", "max_cost": max_cost}
        answer = await api.post("/v1/batches", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_cost")
