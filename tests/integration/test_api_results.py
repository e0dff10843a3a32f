"""What a client reads of a batch while it runs and after: partial files, joined results; and how it retries one."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from batchord.broker import Step
from batchord.contract import line_id, produced_file_id
from batchord.lifecycle import Status
from batchord.service import files, partial, results
from tests.integration.api import Api, open_api
from tests.integration.steps import BATCH, Site, Sites, line, mixed_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.timeout(120)

OUTPUT, ERRORS = produced_file_id(BATCH, "output"), produced_file_id(BATCH, "errors")
KINDS = ["ok", "bad", "large", "broken", "ok", "ok", "large"]


def many_lines(lines: int) -> list[dict[str, Any]]:
    """Give lines of two providers, with as many kinds of answers as there are."""
    return [line(f"{KINDS[number % 7]}-{number}", "two" if number % 5 == 3 else "one") for number in range(lines)]


@asynccontextmanager
async def api_of(site: Site) -> AsyncIterator[Api]:
    async with open_api(site.settings.redis_url, site.settings.data_dir) as api:
        yield api


async def rows_of(api: Api, **query: Any) -> list[dict[str, Any]]:
    answer = await api.get(f"/v1/batches/{BATCH}/results", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(raw) for raw in answer.text.splitlines()]


def statuses(lines: Sequence[dict[str, Any]]) -> list[str]:
    return ["failed" if each["custom_id"].startswith("b") else "succeeded" for each in lines]


async def partial_lines(api: Api, file_id: str) -> list[bytes]:
    answer = await api.get(f"/v1/files/{file_id}/content")
    if answer.status_code == 404:
        return []
    assert answer.headers["x-incomplete"] == "true"
    assert answer.headers["x-last-line"] == str(len(answer.content.splitlines()))
    return answer.content.splitlines()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("is_retry", [False, True])
async def test_a_file_of_a_running_batch_grows_into_the_final_one(sites: Sites, seed: int, *, is_retry: bool) -> None:
    lines = many_lines(30)
    async with sites.new(seed=seed, window_lines=12) as site, api_of(site) as api:
        site.submit(lines)
        if is_retry:
            await site.drive()
            site.upstream.healed = True
            assert (await api.post(f"/v1/batches/{BATCH}/retry")).status_code == 200
        ids = [produced_file_id(BATCH, part, int(is_retry)) for part in ("output", "errors")]
        seen: list[list[list[bytes]]] = []
        while message := site.take():
            await site.carry_out(message)
            if not site.record().batch.status.is_terminal:
                seen.append([await partial_lines(api, file_id) for file_id in ids])
        final = [(site.result().output or b"").splitlines(), (site.result().errors or b"").splitlines()]
        for growing in zip(*seen, strict=True):
            assert [len(lines) for lines in growing] == sorted(len(lines) for lines in growing)
        for given in seen:
            assert all(whole[: len(part)] == part for part, whole in zip(given, final, strict=True))
        assert len(seen[-1][0]) > 5


async def test_a_file_is_shown_as_soon_as_it_can_be_read(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        shown = set()
        while (message := site.take()) and not site.record().batch.status.is_terminal:
            await site.carry_out(message)
            batch = (await api.get(f"/v1/batches/{BATCH}")).json()
            for file_id in filter(None, (batch["output_file_id"], batch["error_file_id"])):
                shown.add(file_id)
                assert (await api.get(f"/v1/files/{file_id}")).json()["status"] in {"uploaded", "processed"}
                assert (await api.get(f"/v1/files/{file_id}/content")).status_code == 200
        assert shown == {OUTPUT, ERRORS}
        listed = {each["id"] for each in (await api.get("/v1/files")).json()["data"]}
        assert listed == {OUTPUT, ERRORS, site.record().batch.input_file_id}


async def test_a_partial_reading_goes_on_in_the_final_file(sites: Sites) -> None:
    async with sites.new(window_lines=12) as site, api_of(site) as api:
        site.submit(many_lines(30))
        while site.record().shards.get("one") is None or len(await partial_lines(api, OUTPUT)) < 5:
            await site.carry_out(site.take() or await site.until(Step.SEAL))
        file = await files.find(api.backend, "default", OUTPUT)
        reading = partial.lines(api.backend, file)
        given = [await anext(reading)]
        await site.drive()
        given += [raw async for raw in reading]
        assert (site.result().output or b"").splitlines() == given


async def test_the_results_join_each_line_with_its_outcome(sites: Sites) -> None:
    lines = many_lines(14)
    async with sites.new() as site, api_of(site) as api:
        site.submit(lines)
        await site.drive()
        rows = await rows_of(api)
        assert [row["custom_id"] for row in rows] == [each["custom_id"] for each in lines]
        assert [row["line"] for row in rows] == list(range(1, 15))
        assert [row["input"] for row in rows] == [each["body"] for each in lines]
        assert [row["status"] for row in rows] == statuses(lines)
        assert rows[0]["response"]["status_code"] == 200
        assert (rows[1]["response"]["status_code"], rows[1]["error"]) == (400, None)
        assert (rows[3]["response"], rows[3]["error"]["code"]) == (None, "invalid_response")


@pytest.mark.parametrize("is_retry", [False, True])
async def test_the_results_of_a_running_batch_are_what_is_known_so_far(sites: Sites, *, is_retry: bool) -> None:
    lines = many_lines(20)
    async with sites.new(seed=3, window_lines=6) as site, api_of(site) as api:
        site.submit(lines)
        if is_retry:
            await site.drive()
            site.upstream.healed = True
            await api.post(f"/v1/batches/{BATCH}/retry")
        before = statuses(lines)
        final = ["succeeded"] * 20 if is_retry else before
        await site.carry_out(await site.until(Step.PLAN))
        seen = set()
        while message := site.take():
            rows = await rows_of(api)
            assert [row["custom_id"] for row in rows] == [each["custom_id"] for each in lines]
            assert all(row["status"] in {"pending", status} for row, status in zip(rows, final, strict=True))
            assert [row["input"] for row in rows] == [each["body"] for each in lines]
            seen.add(sum(row["status"] == "pending" for row in rows))
            await site.carry_out(message)
        assert {0, 1, 2} < seen
        assert [row["status"] for row in await rows_of(api)] == final


@pytest.mark.parametrize(
    ("query", "numbers", "last", "incomplete"),
    [
        ({}, range(14), 14, False),
        ({"limit": 5}, range(5), 5, True),
        ({"skip": 5, "limit": 5}, range(5, 10), 10, True),
        ({"skip": 10, "limit": 4}, range(10, 14), 14, False),
        ({"skip": 12, "limit": 40}, range(12, 14), 14, False),
        ({"skip": 14}, [], 14, False),
        ({"skip": 99, "limit": 2}, [], 99, False),
        ({"status": "failed"}, [1, 3, 8, 10], 14, False),
        ({"status": "failed", "limit": 2}, [1, 3], 4, True),
        ({"status": "failed", "limit": 2, "skip": 4}, [8, 10], 11, True),
        ({"status": "failed", "limit": 2, "skip": 11}, [], 14, False),
        ({"search": "LARGE"}, [2, 6, 9, 13], 14, False),
        ({"search": "-1", "status": "succeeded", "limit": 2}, [11, 12], 13, True),
        ({"status": "pending"}, [], 14, False),
    ],
)
async def test_the_results_that_were_asked_for(
    sites: Sites, query: dict[str, Any], numbers: Sequence[int], last: int, *, incomplete: bool
) -> None:
    lines = many_lines(14)
    async with sites.new() as site, api_of(site) as api:
        site.submit(lines)
        await site.drive()
        answer = await api.get(f"/v1/batches/{BATCH}/results", params=query)
        rows = [json.loads(raw) for raw in answer.text.splitlines()]
        assert [row["custom_id"] for row in rows] == [lines[number]["custom_id"] for number in numbers]
        assert [row["input"] for row in rows] == [lines[number]["body"] for number in numbers]
        assert (answer.headers["x-last-line"], answer.headers["x-incomplete"]) == (str(last), str(incomplete).lower())


@pytest.mark.parametrize(("stop", "word"), [(Site.cancel, "cancelled"), (Site.pass_deadline, "expired")])
async def test_lines_that_were_never_sent_say_so(sites: Sites, stop: Any, word: str) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        await site.carry_out(await site.until(Step.PLAN))
        assert (await api.get(f"/v1/batches/{BATCH}/results")).headers["x-incomplete"] == "true"
        stop(site)
        await site.drive()
        assert {(row["status"], row["error"]["code"]) for row in await rows_of(api)} == {(word, f"batch_{word}")}


async def test_the_results_outlive_their_input(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        await site.drive()
        await api.delete(f"/v1/files/{site.record().batch.input_file_id}")
        rows = await rows_of(api)
        assert [row["custom_id"] for row in rows] == [each["custom_id"] for each in mixed_lines()]
        assert {row["input"] for row in rows} == {None}


async def test_the_results_go_on_where_the_batch_ends_meanwhile(sites: Sites) -> None:
    async with sites.new(window_lines=12) as site, api_of(site) as api:
        site.submit(many_lines(30))
        await site.carry_out(await site.until(Step.SEAL))
        record = site.record()
        query = results.ResultQuery()
        rows = results._rows(api.backend, record)
        first = await anext(rows)
        await site.drive()
        rest = [row async for row in rows]
        assert [row.line for row in [first, *rest]] == list(range(1, 31))
        assert (await results.measure(api.backend, record, query)).last == 30


async def test_a_batch_that_is_not_planned_has_no_results_yet(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        answer = await api.get(f"/v1/batches/{BATCH}/results")
        assert (answer.text, answer.headers["x-last-line"], answer.headers["x-incomplete"]) == ("", "0", "true")


async def test_the_results_of_an_unknown_batch_are_not_found(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        answer = await api.get(f"/v1/batches/{BATCH}/results")
        assert (answer.status_code, answer.json()["error"]["message"][:14]) == (404, "No batch found")


@pytest.mark.parametrize("query", [{"limit": 0}, {"skip": -1}, {"limit": "x"}, {"status": "done"}])
async def test_a_malformed_question_for_results_is_refused(sites: Sites, query: dict[str, Any]) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        answer = await api.get(f"/v1/batches/{BATCH}/results", params=query)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(query)))


async def test_a_retry_by_http_answers_with_the_batch_that_runs_again(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        await site.drive()
        site.upstream.healed = True
        answer = await api.post(f"/v1/batches/{BATCH}/retry", headers={"content-type": "application/json"})
        batch = answer.json()
        assert (answer.status_code, batch["id"], batch["status"]) == (200, BATCH, Status.VALIDATING)
        assert (batch["completed_at"], batch["output_file_id"], batch["request_counts"]["total"]) == (None, None, 6)
        refused = await api.post(f"/v1/batches/{BATCH}/retry")
        assert (refused.status_code, refused.headers["x-should-retry"]) == (409, "false")
        await site.drive()
        batch = (await api.get(f"/v1/batches/{BATCH}")).json()
        assert (batch["status"], batch["error_file_id"]) == (Status.COMPLETED, None)
        assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
        assert (await api.post(f"/v1/batches/{BATCH}/retry")).status_code == 400
        assert (await api.get(f"/v1/files/{ERRORS}")).status_code == 404


async def test_chosen_lines_are_retried_by_http(sites: Sites) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        await site.drive()
        site.upstream.healed = True
        url = f"/v1/batches/{BATCH}/retry-requests"
        assert (await api.post(url, json={"custom_ids": ["bad-1"]})).status_code == 200
        await site.drive()
        assert (await api.post(url, json={"request_ids": [line_id(BATCH, 4)]})).status_code == 200
        await site.drive()
        assert {row["status"] for row in await rows_of(api)} == {"succeeded"}
        site.assert_tidy()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "custom_ids"),
        ({"custom_ids": ["bad-1"], "request_ids": ["x"]}, "custom_ids"),
        ({"custom_ids": []}, "custom_ids"),
        ({"custom_ids": "bad-1"}, "custom_ids"),
        ({"request_ids": ["nobody"]}, "request_ids"),
        ({"custom_ids": ["ok-0"]}, "custom_ids"),
    ],
)
async def test_a_retry_of_lines_that_cannot_be_is_a_bad_request(sites: Sites, body: dict[str, Any], param: str) -> None:
    async with sites.new() as site, api_of(site) as api:
        site.submit(mixed_lines())
        await site.drive()
        answer = await api.post(f"/v1/batches/{BATCH}/retry-requests", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert site.record().batch.status is Status.COMPLETED
