"""What is read and retried of a batch whose files or parts were lost or deleted: never an answer that breaks off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from batchord.broker import Step
from batchord.lifecycle import Status
from tests.integration.api import open_api
from tests.integration.retries import ended, retry_all
from tests.integration.steps import BATCH, Sites, line, mixed_lines

if TYPE_CHECKING:
    from tests.integration.steps import Site

pytestmark = pytest.mark.timeout(120)


async def end_with_lost_lines(site: Site) -> None:
    """End a batch of which the storage lost the second of three shards before it was sent."""
    site.submit([line(f"ok-{number}") for number in range(9)])
    await site.carry_out(await site.until(Step.PLAN))
    [part] = (site.settings.data_dir / "storage").rglob("input/one/1.jsonl")
    part.unlink()
    await ended(site)
    assert [code for _, code in site.result().unsuccessful] == ["input_lost"] * 3


async def test_lines_that_were_lost_between_others_run_in_a_retry(sites: Sites) -> None:
    async with sites.new() as site:
        await end_with_lost_lines(site)
        await retry_all(site)
        await site.drive()
        assert (site.result().status, len(site.result().succeeded)) == (Status.COMPLETED, 9)
        assert sorted(site.upstream.calls) == ["ok-3", "ok-4", "ok-5"]
        site.assert_tidy()


async def test_the_errors_of_lost_and_of_other_lines_are_read_and_retried_together(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit([line(f"{'bad' if number % 2 else 'ok'}-{number}") for number in range(9)])
        await site.carry_out(await site.until(Step.PLAN))
        [part] = (site.settings.data_dir / "storage").rglob("input/one/1.jsonl")
        part.unlink()
        await ended(site)
        async with open_api(site.settings.redis_url, site.settings.data_dir) as api:
            rows = (await api.get(f"/v1/batches/{BATCH}/results")).text.splitlines()
        assert sorted(json.loads(row)["line"] for row in rows) == [0, 0, 0, 1, 2, 3, 7, 8, 9]
        await retry_all(site)
        await site.drive()
        assert (site.result().status, len(site.result().succeeded)) == (Status.COMPLETED, 9)
        assert sorted(site.upstream.calls) == ["bad-1", "bad-3", "bad-5", "bad-7", "ok-4"]
        site.assert_tidy()


@pytest.mark.parametrize("part", ["output", "error"])
async def test_the_results_of_a_batch_whose_file_was_deleted_are_not_found(sites: Sites, part: str) -> None:
    async with sites.new() as site, open_api(site.settings.redis_url, site.settings.data_dir) as api:
        site.submit(mixed_lines())
        await site.drive()
        file_id = (await api.get(f"/v1/batches/{BATCH}")).json()[f"{part}_file_id"]
        assert (await api.delete(f"/v1/files/{file_id}")).status_code == 200
        answer = await api.get(f"/v1/batches/{BATCH}/results")
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "id")


async def test_a_retry_of_a_batch_whose_file_is_damaged_ends_as_the_batch_had_ended(sites: Sites) -> None:
    async with sites.new() as site:
        site.submit(mixed_lines())
        await ended(site)
        batch = site.record().batch
        path = site.settings.data_dir / "storage" / "files" / str(batch.output_file_id)
        path.write_bytes(path.read_bytes()[:-20] + b"\n")
        await retry_all(site)
        await site.drive()
        assert site.record().batch == batch.model_copy(update={"round": 1})
        assert site.upstream.calls == []
