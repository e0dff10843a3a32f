"""A batch's life as its client sees it: each timestamp, counter and file at the moment that the contract says."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from batchord.broker import Step
from batchord.contract import CANCELLED_MESSAGE, EXPIRED_MESSAGE
from tests.integration.api import open_api
from tests.integration.api_batches import CHAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.integration.api import Api
    from tests.integration.steps import Site, Sites

STAMPS: Final = frozenset(
    f"{name}_at" for name in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
)
HOUR_S: Final = 3_600


@asynccontextmanager
async def serving(sites: Sites) -> AsyncIterator[tuple[Site, Api]]:
    """Give a fleet that takes two lines at once, and the API on the same Redis and storage."""
    async with (
        sites.new(shard_lines=2, window_lines=2) as site,
        open_api(site.settings.redis_url, site.settings.data_dir) as api,
    ):
        yield site, api


async def created(api: Api, *custom_ids: str, **more: Any) -> dict[str, Any]:
    """Create a batch of requests whose custom_ids say how they are answered."""
    requests = [{"custom_id": name, "body": {"model": "one-model", "messages": []}} for name in custom_ids]
    order = {"requests": requests, "endpoint": CHAT, "completion_window": "24h", **more}
    answer = await api.post("/v1/batches", json=order)
    assert answer.status_code == 200, answer.text
    batch: dict[str, Any] = answer.json()
    return batch


async def shown(api: Api, batch: dict[str, Any]) -> dict[str, Any]:
    now: dict[str, Any] = (await api.get(f"/v1/batches/{batch['id']}")).json()
    return now


def stamps(batch: dict[str, Any]) -> set[str]:
    """Give the timestamps that are set, having seen that none is before another that must be earlier."""
    order = [batch[name] for name in ("created_at", "in_progress_at", "finalizing_at", "completed_at")]
    known = [at for at in order if at is not None]
    assert known == sorted(known)
    return {name for name in STAMPS if batch[name] is not None}


async def lines(api: Api, file_id: str | None) -> list[dict[str, Any]]:
    """Read a produced file: whole lines, none of them blank."""
    if file_id is None:
        return []
    text = (await api.get(f"/v1/files/{file_id}/content")).content.decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


async def to_the_end(_site: Site, _api: Api, _batch: dict[str, Any]) -> None:
    """Do nothing on the way."""


async def cancel_at_once(_site: Site, api: Api, batch: dict[str, Any]) -> None:
    answer = await api.post(f"/v1/batches/{batch['id']}/cancel")
    assert (answer.status_code, answer.json()["status"], stamps(answer.json())) == (
        200,
        "cancelling",
        {"cancelling_at"},
    )


async def cancel_after_a_shard(site: Site, api: Api, batch: dict[str, Any]) -> None:
    await site.carry_out(await site.until(Step.SEAL))
    first = (await api.post(f"/v1/batches/{batch['id']}/cancel")).json()
    assert (first["status"], stamps(first)) == ("cancelling", {"in_progress_at", "cancelling_at"})
    assert (await api.post(f"/v1/batches/{batch['id']}/cancel")).json() == first


async def expire_after_a_shard(site: Site, _api: Api, batch: dict[str, Any]) -> None:
    await site.carry_out(await site.until(Step.SEAL))
    site.pass_deadline(batch["id"])


RAN: Final = {"in_progress_at", "finalizing_at"}
CODES: Final = {"batch_cancelled": CANCELLED_MESSAGE, "batch_expired": EXPIRED_MESSAGE}


@pytest.mark.parametrize(
    ("custom_ids", "meanwhile", "status", "set_stamps", "counts", "succeeded", "unsuccessful"),
    [
        pytest.param(
            ["ok-1", "bad-2", "broken-3"],
            to_the_end,
            "completed",
            {*RAN, "completed_at"},
            (3, 1, 2),
            ["ok-1"],
            {"bad-2": 400, "broken-3": "invalid_response"},
            id="completed with failed lines",
        ),
        pytest.param(
            ["ok-1", "ok-2"],
            to_the_end,
            "completed",
            {*RAN, "completed_at"},
            (2, 2, 0),
            ["ok-1", "ok-2"],
            {},
            id="completed",
        ),
        pytest.param(
            ["bad-1"], to_the_end, "completed", {*RAN, "completed_at"}, (1, 0, 1), [], {"bad-1": 400}, id="all failed"
        ),
        pytest.param(
            ["ok-1", "ok-2"],
            cancel_at_once,
            "cancelled",
            {"cancelling_at", "cancelled_at"},
            (0, 0, 0),
            [],
            {},
            id="cancelled while validating",
        ),
        pytest.param(
            ["ok-1", "ok-2", "ok-3", "ok-4"],
            cancel_after_a_shard,
            "cancelled",
            {"in_progress_at", "cancelling_at", "cancelled_at"},
            (4, 2, 0),
            ["ok-1", "ok-2"],
            {"ok-3": "batch_cancelled", "ok-4": "batch_cancelled"},
            id="cancelled in progress",
        ),
        pytest.param(
            ["ok-1", "ok-2", "ok-3"],
            expire_after_a_shard,
            "expired",
            {*RAN, "expired_at"},
            (3, 2, 0),
            ["ok-1", "ok-2"],
            {"ok-3": "batch_expired"},
            id="expired",
        ),
    ],
)
async def test_a_batch_ends_with_the_stamps_counts_and_files_of_its_end(  # noqa: PLR0913, PLR0917 (a row of the table)
    sites: Sites,
    custom_ids: list[str],
    meanwhile: Callable[[Site, Api, dict[str, Any]], Awaitable[None]],
    status: str,
    set_stamps: set[str],
    counts: tuple[int, int, int],
    succeeded: list[str],
    unsuccessful: dict[str, int | str],
) -> None:
    async with serving(sites) as (site, api):
        batch = await created(api, *custom_ids)
        assert stamps(batch) == set()
        assert batch["expires_at"] == batch["created_at"] + 86_400
        await meanwhile(site, api, batch)
        await site.drive()
        ended = await shown(api, batch)
        assert (ended["status"], stamps(ended)) == (status, set_stamps)
        assert tuple(ended["request_counts"].values()) == counts
        assert ended["model"] == (None if counts[0] == 0 else "one-model")
        answered = len(succeeded) + sum(isinstance(code, int) for code in unsuccessful.values())
        assert ended["usage"]["total_tokens"] == 5 * answered
        output, errors = await lines(api, ended["output_file_id"]), await lines(api, ended["error_file_id"])
        assert (ended["output_file_id"] is None, ended["error_file_id"] is None) == (not succeeded, not unsuccessful)
        assert [line["custom_id"] for line in output] == succeeded
        assert {line["custom_id"]: told(line) for line in errors} == unsuccessful


def told(line: dict[str, Any]) -> int | str:
    """Give the status or the code of an error file's line, having seen that it has all keys and one of the two."""
    assert line.keys() == {"id", "custom_id", "response", "error"}
    assert line["id"].startswith("batch_req_")
    if line["error"] is None:
        assert line["response"].keys() == {"status_code", "request_id", "provider", "cost", "body"}
        return int(line["response"]["status_code"])
    assert line["response"] is None
    assert line["error"].keys() == {"code", "message"}
    code: str = line["error"]["code"]
    assert CODES.get(code) in {None, line["error"]["message"]}
    return code


@pytest.mark.parametrize("life_s", [None, HOUR_S])
async def test_produced_files_are_named_after_their_batch_and_live_as_it_says(sites: Sites, life_s: int | None) -> None:
    expires_after = None if life_s is None else {"anchor": "created_at", "seconds": life_s}
    async with serving(sites) as (site, api):
        batch = await created(api, "ok-1", "bad-2", output_expires_after=expires_after)
        await site.drive()
        ended = await shown(api, batch)
        for file_id, word in ((ended["output_file_id"], "output"), (ended["error_file_id"], "error")):
            file = (await api.get(f"/v1/files/{file_id}")).json()
            assert file["filename"] == f"{batch['id']}_{word}.jsonl"
            assert (file["purpose"], file["status"]) == ("batch_output", "processed")
            assert file["expires_at"] == (None if life_s is None else file["created_at"] + life_s)
            assert file["created_at"] >= ended["finalizing_at"]
