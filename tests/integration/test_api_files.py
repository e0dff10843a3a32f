"""Files over HTTP: what is stored, and what is refused, of which nothing remains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from batchord.service import files as service
from batchord.service.incoming import RESERVED_S
from tests.integration.api import Api, open_api
from tests.integration.api_files import BOUNDARY, LINE, MULTIPART, Client, Lossy, form, remains, upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

LIMITS = {"max_batch_file_bytes": 500, "max_file_bytes": 1_000}
SLACK = 16 * 1024 * 1024
BATCH_LIFE_S = 30 * 86_400


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, **LIMITS) as api:
        yield api


async def test_a_stored_file_is_told_with_every_key_and_read_back(api: Api) -> None:
    before = int(time.time())
    file = await upload(api, filename="你好.jsonl")
    assert file == {
        "id": file["id"],
        "object": "file",
        "bytes": len(LINE),
        "created_at": file["created_at"],
        "expires_at": file["created_at"] + BATCH_LIFE_S,
        "filename": "你好.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert before <= file["created_at"] <= time.time()
    assert (await api.get(f"/v1/files/{file['id']}")).json() == file
    assert (await api.get(f"/v1/files/{file['id']}/content")).content == LINE
    assert (await api.get("/v1/files")).json()["data"] == [file]


@pytest.mark.parametrize(
    ("fields", "life_s"),
    [
        ({"purpose": "batch"}, BATCH_LIFE_S),
        ({"purpose": "user_data"}, None),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}, 3_600),
        ({"purpose": "vision", "expires_after[anchor]": "created_at", "expires_after[seconds]": "2592000"}, 2_592_000),
    ],
)
async def test_a_file_lives_as_its_uploader_says_or_as_its_purpose_does(
    api: Api, fields: dict[str, str], life_s: int | None
) -> None:
    file = await upload(api, fields=fields)
    assert file["expires_at"] == (None if life_s is None else file["created_at"] + life_s)


@pytest.mark.parametrize("filename", ["in.jsonl", "IN.JSONL", "noextension", "a.b.jsonl"])
async def test_a_batch_s_file_is_jsonl_or_has_no_extension(api: Api, filename: str) -> None:
    assert (await upload(api, b"", filename))["filename"] == filename


async def test_a_form_s_fields_may_come_in_any_order(api: Api) -> None:
    parts = [("file", "in.jsonl", LINE), ("unknown", None, b"x"), ("purpose", None, b"batch")]
    for order in (parts, parts[::-1]):
        answer = await api.post("/v1/files", content=form(*order), headers=MULTIPART)
        assert (answer.status_code, answer.json()["bytes"]) == (200, len(LINE))


FILE, PURPOSE = ("file", "in.jsonl", LINE), ("purpose", None, b"batch")
PURPOSES = "['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals']"
WRONG_SECONDS = "Invalid 'expires_after.seconds'"
ANCHOR, SECONDS = ("expires_after[anchor]", None, b"created_at"), ("expires_after[seconds]", None, b"3600")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([FILE], ("Missing required parameter: 'purpose'.", "purpose", "missing_required_parameter")),
        ([PURPOSE], ("Missing required parameter: 'file'.", "file", "missing_required_parameter")),
        (
            [FILE, ("purpose", None, b"batches")],
            (f"'batches' is not one of {PURPOSES} - 'purpose'", "purpose", None),
        ),
        (
            [PURPOSE, ("file", "in.csv", LINE)],
            ("Invalid file format for Batch API. Must be .jsonl", None, None),
        ),
        ([PURPOSE, ("file", "in.jsonl", b"x" * 501)], ("File is too large.", None, None)),
        ([("file", "in.jsonl", b"x" * 501), PURPOSE], ("File is too large.", None, None)),
        ([("purpose", None, b"vision"), ("file", "in", b"x" * 1_001)], ("File is too large.", None, None)),
        ([("file", "in", b"x" * 500_000), ("purpose", None, b"vision")], ("File is too large.", None, None)),
        (
            [FILE, PURPOSE, ANCHOR],
            (
                "Missing required parameter: 'expires_after.seconds'.",
                "expires_after.seconds",
                "missing_required_parameter",
            ),
        ),
        (
            [SECONDS, FILE, PURPOSE],
            (
                "Missing required parameter: 'expires_after.anchor'.",
                "expires_after.anchor",
                "missing_required_parameter",
            ),
        ),
        (
            [FILE, PURPOSE, SECONDS, ("expires_after[anchor]", None, b"now")],
            ("Invalid value: 'now'. Supported values are: 'created_at'.", "expires_after.anchor", "invalid_value"),
        ),
        (
            [FILE, PURPOSE, ANCHOR, ("expires_after[seconds]", None, b"3599")],
            (
                f"{WRONG_SECONDS}: integer below minimum value. Expected a value >= 3600, but got 3599 instead.",
                "expires_after.seconds",
                "integer_below_min_value",
            ),
        ),
        (
            [FILE, PURPOSE, ANCHOR, ("expires_after[seconds]", None, b"2592001")],
            (
                f"{WRONG_SECONDS}: integer above maximum value. Expected a value <= 2592000, but got 2592001 instead.",
                "expires_after.seconds",
                "integer_above_max_value",
            ),
        ),
        (
            [FILE, PURPOSE, ANCHOR, ("expires_after[seconds]", None, b"soon")],
            (
                "Invalid type for 'expires_after.seconds': expected an integer, but got a string instead.",
                "expires_after.seconds",
                "invalid_type",
            ),
        ),
        ([FILE, FILE, PURPOSE], ("Duplicate parameter: 'file'. Only one file can be uploaded at once.", "file", None)),
        ([FILE, ("purpose", None, b"\xff")], ("Invalid 'purpose': the string is not valid Unicode.", "purpose", None)),
        ([FILE, ("purpose", None, b"x" * 70_000)], ("'purpose' is too long.", "purpose", None)),
    ],
)
async def test_what_the_contract_does_not_allow_is_refused_in_its_words_and_leaves_nothing(
    api: Api,
    parts: list[tuple[str, str | None, bytes]],
    expected: tuple[str, str | None, str | None],
) -> None:
    answer = await api.post("/v1/files", content=form(*parts), headers=MULTIPART)
    told = answer.json()["error"]
    assert (answer.status_code, told["type"]) == (400, "invalid_request_error")
    assert (told["message"], told["param"], told["code"]) == expected
    assert remains(api) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", form(FILE, PURPOSE)),
        (f"multipart/form-data; boundary={'x' * 71}", form(FILE, PURPOSE)),
        ("multipart/form-data; boundary*=idna''%ff", form(FILE, PURPOSE)),
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"purpose=batch"),
        (MULTIPART["content-type"], b""),
        (MULTIPART["content-type"], b"{}"),
        (MULTIPART["content-type"], form(FILE, PURPOSE, end=b"")),
        (MULTIPART["content-type"], form(FILE, PURPOSE)[:90]),
        (MULTIPART["content-type"], form(PURPOSE, FILE)[:-40]),
        (MULTIPART["content-type"], form(FILE, PURPOSE).replace(b'name="purpose"', b"")),
    ],
)
async def test_a_body_that_is_no_whole_form_is_refused_and_leaves_nothing(
    api: Api, content_type: str, body: bytes
) -> None:
    answer = await api.post("/v1/files", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert remains(api) == []


@pytest.mark.parametrize("kept", [0, 1, 60, 110, 150, 200])
async def test_a_client_that_hangs_up_leaves_nothing_behind(api: Api, kept: int) -> None:
    body = form(PURPOSE, ("file", "in.jsonl", b"x" * 100))
    assert await Client(api, [body[: kept // 2], body[kept // 2 : kept]], hangs_up=True).post("/v1/files") in {
        None,
        400,
    }
    assert remains(api) == []


async def test_a_large_upload_that_breaks_off_leaves_nothing_behind(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    start = form(PURPOSE, ("file", "in.jsonl", b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]
    async with open_api(valkey.url, tmp_path) as api:
        await Client(api, [start, *[b"x" * 1_000_000] * 12], hangs_up=True).post("/v1/files")
    assert remains(api) == []


async def test_a_body_past_the_hard_cap_is_refused_before_it_is_read_where_its_length_is_told(api: Api) -> None:
    client = Client(api, [b"x"] * 3, hangs_up=False, length=SLACK + 1_001)
    assert (await client.post("/v1/files"), client.unread) == (413, 3)
    assert remains(api) == []


async def test_a_body_past_the_hard_cap_is_refused_as_soon_as_it_is_seen(api: Api) -> None:
    start = form(PURPOSE, ("file", "in.jsonl", b""))[: -len(f"\r\n--{BOUNDARY}--\r\n")]
    client = Client(api, [start, *[b"x" * 1_000_000] * 30], hangs_up=False)
    assert await client.post("/v1/files") == 413
    assert 10 < client.unread < 20
    assert remains(api) == []


async def test_a_small_overrun_is_read_to_its_end_so_that_its_client_gets_the_answer(api: Api) -> None:
    body = form(PURPOSE, ("file", "in.jsonl", b"x" * 5_000_000))
    client = Client(api, [body[at : at + 100_000] for at in range(0, len(body), 100_000)], hangs_up=False)
    assert (await client.post("/v1/files"), client.unread) == (400, 0)


async def test_an_upload_while_the_storage_is_away_is_refused_for_now_and_leaves_nothing(
    api: Api, tmp_path: Path
) -> None:
    (tmp_path / "storage").rmdir()
    (tmp_path / "storage").write_text("not a folder", encoding="utf-8")
    answer = await api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", LINE)})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
    (tmp_path / "storage").unlink()
    await service.expire_files(api.backend.state, api.backend.blobs, time.time() + RESERVED_S + 1)
    assert remains(api) == []


async def test_a_file_whose_record_s_answer_was_lost_leaves_nothing_behind(api: Api) -> None:
    state = api.backend.state
    for lost in (0, 1):
        api.backend.state = Lossy(api.backend.settings.redis_url, lost)
        answer = await api.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", LINE)})
        await api.backend.state.aclose()
        api.backend.state = state
        assert answer.status_code == 503
        await service.expire_files(state, api.backend.blobs, time.time() + RESERVED_S + 1)
        assert remains(api) == []
