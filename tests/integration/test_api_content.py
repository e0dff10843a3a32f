"""The content of files over HTTP: whole, in ranges, and by lines; headers that are right before the first byte."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from batchord.contract import produced_file_id
from batchord.storage import paths
from tests.integration.api import Api, open_api
from tests.integration.steps import BATCH
from tests.integration.steps import line as request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey
    from tests.integration.steps import Sites

TEN = b"0123456789"
BOUND = 500


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, max_line_bytes=1_024) as api:
        yield api


async def stored(api: Api, content: bytes = TEN, filename: str = "in.jsonl") -> str:
    answer = await api.post("/v1/files", data={"purpose": "user_data"}, files={"file": (filename, content)})
    file_id: str = answer.json()["id"]
    return f"/v1/files/{file_id}/content"


def line(number: int, custom_id: object = None) -> bytes:
    return json.dumps({"custom_id": f"Line-{number}" if custom_id is None else custom_id, "n": number}).encode() + b"\n"


async def test_the_whole_comes_with_its_length_its_tag_and_its_name(api: Api) -> None:
    path = await stored(api, filename='你 "好".jsonl')
    got, told = await api.get(path), await api.head(path)
    assert (got.status_code, got.content) == (200, TEN)
    assert (told.status_code, told.content) == (200, b"")
    for answer in (got, told):
        headers = answer.headers
        assert headers["content-type"] == "application/octet-stream"
        assert (headers["content-length"], headers["accept-ranges"]) == ("10", "bytes")
        assert headers["etag"] == f'"{path.split("/")[3]}"'
        kind, _, name = headers["content-disposition"].partition("; filename*=utf-8''")
        assert (kind, unquote(name)) == ("attachment", '你 "好".jsonl')


@pytest.mark.parametrize("accept", ["application/binary", "application/json", "text/html"])
async def test_what_a_client_accepts_makes_no_difference(api: Api, accept: str) -> None:
    answer = await api.get(await stored(api), headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")


@pytest.mark.parametrize("size_bytes", [0, 1, 3_000_000])
async def test_files_of_any_size_come_back_as_they_were(api: Api, size_bytes: int) -> None:
    content = bytes(number % 251 for number in range(size_bytes))
    answer = await api.get(await stored(api, content))
    assert answer.content == content
    assert int(answer.headers["content-length"]) == size_bytes


@pytest.mark.parametrize(
    ("wanted", "expected", "content_range"),
    [
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=0-99", TEN, "bytes 0-9/10"),
    ],
)
async def test_a_range_comes_alone(api: Api, wanted: str, expected: bytes, content_range: str) -> None:
    answer = await api.get(await stored(api), headers={"range": wanted})
    assert (answer.status_code, answer.content) == (206, expected)
    assert answer.headers["content-range"] == content_range
    assert answer.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("wanted", ["bytes=1-2,4-5", "lines=1-2", "bytes=5-2"])
async def test_several_ranges_and_what_is_none_give_the_whole(api: Api, wanted: str) -> None:
    answer = await api.get(await stored(api), headers={"range": wanted})
    assert (answer.status_code, answer.content) == (200, TEN)


async def test_a_range_past_the_end_is_told_with_the_size(api: Api) -> None:
    answer = await api.get(await stored(api), headers={"range": "bytes=10-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_an_interrupted_download_goes_on_where_it_stopped(api: Api) -> None:
    content = bytes(number * 7 % 251 for number in range(2_500_000))
    path = await stored(api, content)
    tag = (await api.head(path)).headers["etag"]
    rest = await api.get(path, headers={"range": "bytes=1234567-", "if-range": tag})
    assert content[:1_234_567] + rest.content == content


@pytest.mark.parametrize("condition", ['"another"', "Sat, 21 Nov 2026 18:00:00 GMT", 'W/"x"'])
async def test_a_range_of_another_version_gives_the_whole(api: Api, condition: str) -> None:
    answer = await api.get(await stored(api), headers={"range": "bytes=2-5", "if-range": condition})
    assert (answer.status_code, answer.content) == (200, TEN)


async def test_who_has_the_file_is_not_sent_it_again(api: Api) -> None:
    path = await stored(api)
    tag = (await api.head(path)).headers["etag"]
    for condition in (tag, f"W/{tag}", "*", f'"x", {tag}'):
        answer = await api.get(path, headers={"if-none-match": condition, "range": "bytes=2-5"})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert (await api.get(path, headers={"if-none-match": '"x"'})).content == TEN


async def test_a_file_whose_bytes_are_gone_is_not_found(api: Api) -> None:
    path = await stored(api)
    await api.backend.blobs.delete([paths.file(path.split("/")[3])])
    for query in ("", "?limit=1"):
        assert (await api.get(path + query)).status_code == 404


@pytest.mark.parametrize(
    ("query", "numbers", "last_line", "is_incomplete"),
    [
        ("limit=2", [1, 2], 2, "true"),
        ("limit=2&skip=2", [3, 4], 4, "true"),
        ("limit=2&skip=9", [10, 11], 11, "true"),
        ("limit=2&skip=10", [11, 12], 12, "false"),
        ("limit=99", list(range(1, 13)), 12, "false"),
        ("skip=11", [12], 12, "false"),
        ("skip=12", [], 12, "false"),
        ("skip=99", [], 99, "false"),
        ("search=LINE-1", [1, 10, 11, 12], 12, "false"),
        ("search=line-1&limit=2", [1, 10], 10, "true"),
        ("search=line-1&limit=2&skip=10", [11, 12], 12, "false"),
        ("search=nothing", [], 12, "false"),
        ("search=", list(range(1, 13)), 12, "false"),
    ],
)
async def test_lines_come_with_the_place_where_to_go_on(
    api: Api, query: str, numbers: list[int], last_line: int, is_incomplete: str
) -> None:
    path = f"{await stored(api, b''.join(line(number) for number in range(1, 13)))}?{query}"
    got, told = await api.get(path), await api.head(path)
    assert [json.loads(each)["n"] for each in got.content.splitlines()] == numbers
    assert told.content == b""
    for answer in (got, told):
        headers = answer.headers
        assert (headers["content-type"], headers["content-length"]) == ("application/x-ndjson", str(len(got.content)))
        assert (headers["x-last-line"], headers["x-incomplete"]) == (str(last_line), is_incomplete)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_going_on_from_the_last_line_gives_every_line_once(api: Api, limit: int) -> None:
    content = b"".join(line(number) for number in range(1, 8)).replace(b"\n", b"\r\n\n", 3)  # blank lines count
    path, seen, skip, is_incomplete = await stored(api, content), [], 0, True
    while is_incomplete:
        answer = await api.get(path, params={"skip": skip, "limit": limit})
        seen += [json.loads(each)["n"] for each in answer.content.splitlines()]
        skip, is_incomplete = int(answer.headers["x-last-line"]), answer.headers["x-incomplete"] == "true"
    assert (seen, skip) == (list(range(1, 8)), 10)


async def test_lines_that_are_no_requests_are_given_and_not_found_by_search(api: Api) -> None:
    content = b"\n".join([b"not json", b"[1]", b'{"custom_id":7}', b'{"id":"x7"}', line(7).strip(), b'{"custom_id":"7'])
    path = await stored(api, content)
    assert (await api.get(f"{path}?limit=99")).content == content + b"\n"
    assert (await api.get(f"{path}?search=7")).content == line(7)


async def test_a_search_is_of_any_alphabet_and_either_case(api: Api) -> None:
    path = await stored(api, line(1, "Straße-ÄB") + line(2, "你好") + line(3, 'a"b'))
    for search, number in (("äb", 1), ("STRASSE", 1), ("好", 2), ('"', 3)):
        answer = await api.get(path, params={"search": search})
        assert [json.loads(each)["n"] for each in answer.content.splitlines()] == [number]


async def test_a_line_that_is_too_long_is_told_before_anything_is_given(api: Api) -> None:
    path = await stored(api, line(1) + b"x" * 2_000 + b"\n" + line(3))
    assert (await api.get(f"{path}?limit=1")).status_code == 400
    answer = await api.get(f"{path}?skip=0")
    assert (answer.status_code, "Line 2 is too long" in answer.json()["error"]["message"]) == (400, True)
    assert (await api.get(path)).status_code == 200


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "skip=-1", "skip=", "limit=1.5"])
async def test_a_query_s_numbers_have_their_bounds(api: Api, query: str) -> None:
    answer = await api.get(f"{await stored(api)}?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])


async def test_unknown_parameters_make_no_difference(api: Api) -> None:
    assert (await api.get(f"{await stored(api)}?unknown=1")).headers["content-type"] == "application/octet-stream"


async def test_many_read_at_once_and_each_gets_the_whole(api: Api) -> None:
    content = bytes(number % 256 for number in range(500_000))
    path = await stored(api, content)
    answers = await asyncio.gather(*(api.get(path) for _ in range(8)))
    assert all(answer.content == content for answer in answers)


@pytest.mark.parametrize("query", [{"limit": 2}, {"search": "-1"}, {}])
async def test_a_download_follows_a_running_batch_to_its_end(sites: Sites, query: dict[str, Any]) -> None:
    async with sites.new() as site, open_api(site.settings.redis_url, site.settings.data_dir) as api:
        site.submit([request(f"ok-{number}") for number in range(12)])
        path, lines, skip = f"/v1/files/{produced_file_id(BATCH, 'output')}/content", b"", 0
        told: list[str] = []
        while "false" not in told and len(told) < BOUND:
            if message := site.take():
                await site.carry_out(message)
            answer = await api.get(path, params={"skip": skip, **query})
            told.append(answer.headers.get("x-incomplete", ""))
            if answer.status_code == 200:
                assert int(answer.headers["content-length"]) == len(answer.content)
                lines += answer.content
                skip = int(answer.headers["x-last-line"])
        assert {"true", "false"} <= set(told)
        final = site.result().output or b""
        wanted = [each for each in final.splitlines(keepends=True) if query.get("search", "") in custom_id(each)]
        assert lines == b"".join(wanted)
        assert skip == 12


def custom_id(line: bytes) -> str:
    return str(json.loads(line)["custom_id"])
