"""The list of batches over HTTP: its pages, its filters, its orders."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from batchord.lifecycle import Status
from batchord.service import batch_listing
from batchord.state import batches, keys, listings, removal
from batchord.state.calls import Call
from tests.integration.api import Api, open_api
from tests.integration.api_batches import CHAT, RUNNING, as_tenant, entered, put_into, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

AT = 1_700_000_000


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path) as api:
        yield api


async def listed(api: Api, **params: Any) -> list[str]:
    answer = await api.get("/v1/batches", params=params)
    assert answer.status_code == 200, answer.text
    return [batch["id"] for batch in answer.json()["data"]]


async def paged(api: Api, **params: Any) -> list[str]:
    """Walk all pages as the stock SDK does: by the id of the last item, until `has_more` is false."""
    found: list[str] = []
    while True:
        page = (await api.get("/v1/batches", params=params)).json()
        ids = [batch["id"] for batch in page["data"]]
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
        found += ids
        if not page["has_more"]:
            return found
        params["after"] = ids[-1]


async def test_an_empty_list_has_no_ids(api: Api) -> None:
    answer = await api.get("/v1/batches")
    assert answer.json() == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_pages_neither_repeat_nor_miss_batches_created_at_once(api: Api, limit: int) -> None:
    same = [(await entered(api, Status.COMPLETED, at=AT)).id for _ in range(5)]
    older, newer = await entered(api, Status.COMPLETED, at=AT - 0.5), await entered(api, Status.FAILED, at=AT + 0.25)
    assert await paged(api, limit=limit) == [newer.id, *sorted(same, reverse=True), older.id]


async def test_a_page_has_twenty_batches_if_no_limit_is_given(api: Api) -> None:
    for number in range(21):
        await entered(api, Status.COMPLETED, at=AT + number)
    page = (await api.get("/v1/batches")).json()
    assert (len(page["data"]), page["has_more"]) == (20, True)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"status": "done"}, "status"),
        ({"created_after": "monday"}, "created_after"),
        ({"created_before": 10**400}, "created_before"),
        ({"include": "everything"}, "include"),
    ],
)
async def test_a_bad_parameter_is_refused(api: Api, params: dict[str, Any], param: str) -> None:
    answer = await api.get("/v1/batches", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("active_first", [False, True])
async def test_an_unknown_after_is_not_found(api: Api, *, active_first: bool) -> None:
    await entered(api, Status.IN_PROGRESS)
    answer = await api.get("/v1/batches", params={"after": "batch_none", "active_first": active_first})
    assert (answer.status_code, answer.json()) == (404, refusal("No batch found with id 'batch_none'."))


async def test_filters_find_what_they_say(api: Api) -> None:
    first = await entered(api, Status.COMPLETED, at=AT, endpoint="/v1/embeddings", metadata={"team": "Größe"})
    second = await entered(api, Status.IN_PROGRESS, at=AT + 10.5, input_file_id="file-Second")
    third = await entered(api, Status.COMPLETED, at=AT + 20)
    await api.backend.state.run(Call(("HSET", keys.batch(third.id), "model", "Llama-3"), bool))
    assert await listed(api, status="completed") == [third.id, first.id]
    assert await listed(api, endpoint="/v1/embeddings") == [first.id]
    assert await listed(api, endpoint=CHAT, status="completed") == [third.id]
    assert await listed(api, created_after=AT + 10) == [third.id, second.id]
    assert await listed(api, created_after=AT, created_before=AT + 20) == [second.id, first.id]
    assert await listed(api, created_before=AT) == []
    for search, batch in (
        ("grösse", first),
        ("EMBED", first),
        ("file-sec", second),
        ("llama", third),
        (third.id[10:30].upper(), third),
    ):
        assert await listed(api, search=search) == [batch.id]
    assert await listed(api, search="team") == []
    assert await listed(api, search="") == await listed(api) == [third.id, second.id, first.id]


async def test_a_filter_reads_on_until_the_page_is_full(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_listing, "_CHUNK", 4)
    wanted = []
    for number in range(30):
        status = Status.FAILED if number % 5 == 0 else Status.COMPLETED
        batch = await entered(api, status, at=AT + number)
        wanted += [batch.id] if status is Status.FAILED else []
    for limit in (1, 2, 5, 6, 50):
        assert await paged(api, status="failed", limit=limit) == wanted[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_those_that_have_not_ended_come_first_on_every_page(api: Api, limit: int) -> None:
    running: list[str] = []
    ended: list[str] = []
    for number, status in enumerate([*Status, *Status]):
        batch = await entered(api, status, at=AT + number / 4)
        (running if status in RUNNING else ended).append(batch.id)
    assert await paged(api, active_first=True, limit=limit) == [*running[::-1], *ended[::-1]]


async def test_active_first_obeys_the_filters(api: Api) -> None:
    outside = await entered(api, Status.IN_PROGRESS, at=AT + 99)
    running = await entered(api, Status.IN_PROGRESS, at=AT, metadata={"team": "a"})
    ended = await entered(api, Status.COMPLETED, at=AT + 1, metadata={"team": "a"})
    await entered(api, Status.IN_PROGRESS, at=AT + 2, metadata={"team": "b"})
    assert await listed(api, active_first=True, search="a", created_before=AT + 2) == [running.id, ended.id]
    assert (await listed(api, active_first=True))[0] == outside.id


async def test_a_batch_that_ended_but_is_still_on_the_sweeps_list_has_ended(api: Api) -> None:
    running, ended = await entered(api, Status.IN_PROGRESS, at=AT), await entered(api, Status.IN_PROGRESS, at=AT + 1)
    await put_into(api, ended.id, Status.COMPLETED)
    await api.backend.state.run(batches.activate(ended.id, AT + 1))
    assert await paged(api, active_first=True, limit=1) == [running.id, ended.id]


async def test_active_first_shows_only_the_tenants_own(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with open_api(valkey.url, tmp_path, api_keys="one:sk-one,two:sk-two") as api:
        own = await entered(api, Status.IN_PROGRESS, tenant="one")
        await entered(api, Status.IN_PROGRESS, tenant="two")
        answer = await api.get("/v1/batches", params={"active_first": True}, headers=as_tenant("one"))
        assert [batch["id"] for batch in answer.json()["data"]] == [own.id]


async def test_what_is_listed_without_being_there_is_skipped_and_dropped(api: Api) -> None:
    there = [await entered(api, Status.COMPLETED, at=AT + number) for number in (0, 10, 20)]
    listing = keys.tenant_batches("default")
    for number in range(30):
        await api.backend.state.run(listings.note(listing, f"batch_gone{number}", AT + number))
    assert await paged(api, limit=2) == [batch.id for batch in reversed(there)]
    assert await api.backend.state.run(Call(("ZCARD", listing), int)) == len(there)


async def test_what_is_only_about_to_be_written_stays_listed(api: Api) -> None:
    listing = keys.tenant_batches("default")
    await api.backend.state.run(listings.note(listing, "batch_coming", time.time()))
    assert await listed(api) == []
    assert await api.backend.state.run(Call(("ZCARD", listing), int)) == 1


async def test_a_batch_that_is_being_removed_is_not_listed(api: Api) -> None:
    batch, other = await entered(api, Status.COMPLETED), await entered(api, Status.COMPLETED)
    record = await api.backend.state.run(batches.read(batch.id))
    assert record is not None
    assert await api.backend.state.run(removal.condemn(record))
    assert await listed(api) == await listed(api, active_first=True) == [other.id]


async def test_analytics_come_with_the_batches_where_they_are_asked_for(api: Api) -> None:
    batch = await entered(api, Status.COMPLETED)
    (plain,) = (await api.get("/v1/batches")).json()["data"]
    (full,) = (await api.get("/v1/batches", params={"include": "analytics"})).json()["data"]
    assert "analytics" not in plain
    assert {**plain, "analytics": full["analytics"]} == full
    assert full["analytics"] == json.loads((await api.get(f"/v1/batches/{batch.id}/analytics")).text)
