"""Everything that the stock `openai` SDK has for files, uploads and batches, by its sync and its async client."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types import Batch, FileDeleted, FileObject, Model, Upload
from openai.types.uploads import UploadPart

from tests.acceptance.cli import chat, wait_until
from tests.acceptance.server import Server, jsonl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pydantic import BaseModel

KEY = "sk-of-the-team"
REQUESTS = jsonl(chat(number) for number in range(3))
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), keys=f"team:{KEY}") as server:
        yield server


@pytest.fixture(params=["sync", "async"])
async def client(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """One client of either kind; what its methods give is taken by `settle` and `collect`."""
    client = server.client() if request.param == "sync" else server.async_client()
    yield client
    await settle(client.close())


async def settle(value: Any) -> Any:
    """Give the value of a call of either client."""
    return await value if inspect.isawaitable(value) else value


async def collect(pages: Any) -> list[Any]:
    """Give all items of all pages."""
    return [item async for item in pages] if hasattr(pages, "__aiter__") else list(pages)


async def upload(client: Any, content: bytes = REQUESTS, name: str = "in.jsonl") -> FileObject:
    file = await settle(client.files.create(file=(name, content), purpose="batch"))
    assert isinstance(file, FileObject)
    return file


async def start(client: Any, file_id: str, **more: Any) -> Batch:
    batch = await settle(
        client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", **more)
    )
    assert isinstance(batch, Batch)
    return batch


def ended(server: Server, batch_id: str) -> Batch:
    """Wait for the end of a batch."""
    client = server.client()
    wait_until(lambda: client.batches.retrieve(batch_id).status in ENDED, f"{batch_id} ends")
    return client.batches.retrieve(batch_id)


async def strictly(kind: type[BaseModel], raw: Any) -> Any:
    """Read the JSON of a raw answer as the SDK's type without any coercion, and give it."""
    answer = await settle(raw)
    return kind.model_validate_json(answer.http_response.content, strict=True)


@pytest.mark.parametrize("given", ["path", "bytes", "tuple", "open file"])
async def test_a_file_is_created_from_whatever_the_sdk_takes(client: Any, tmp_path: Path, given: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(REQUESTS)
    with path.open("rb") as opened:
        files: dict[str, tuple[Any, str]] = {
            "path": (path, "in.jsonl"),
            "bytes": (REQUESTS, "upload"),
            "tuple": (("given name.jsonl", REQUESTS, "application/jsonl"), "given name.jsonl"),
            "open file": (opened, "in.jsonl"),
        }
        file = await settle(client.files.create(file=files[given][0], purpose="batch"))
    assert (file.filename, file.bytes, file.purpose, file.status) == (
        files[given][1],
        len(REQUESTS),
        "batch",
        "processed",
    )
    content = await settle(client.files.content(file.id))
    assert content.content == REQUESTS


async def test_a_file_may_be_given_a_life_of_its_own(client: Any) -> None:
    life: Any = {"anchor": "created_at", "seconds": 3600}
    file = await settle(client.files.create(file=("in.jsonl", REQUESTS), purpose="batch", expires_after=life))
    assert file.expires_at == file.created_at + 3600


async def test_a_file_is_found_and_deleted_and_then_is_gone(client: Any) -> None:
    file = await upload(client)
    assert await settle(client.files.retrieve(file.id)) == file
    assert await settle(client.files.wait_for_processing(file.id)) == file
    deleted = await settle(client.files.delete(file.id))
    assert deleted == FileDeleted(id=file.id, object="file", deleted=True)
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}") as refused:
            await settle(gone(file.id))
        assert (refused.value.param, refused.value.type) == ("id", "invalid_request_error")


async def test_all_files_are_listed_page_by_page_in_either_order(client: Any) -> None:
    made = [(await upload(client)).id for _ in range(5)]
    newest_first = [file.id for file in await collect(client.files.list(limit=2, purpose="batch"))]
    oldest_first = [file.id for file in await collect(client.files.list(limit=2, purpose="batch", order="asc"))]
    assert newest_first[:5] == made[::-1]
    assert oldest_first == newest_first[::-1]
    assert len(set(newest_first)) == len(newest_first)
    assert await collect(client.files.list(purpose="vision")) == []


async def test_a_page_tells_whether_there_is_more(client: Any) -> None:
    made = [(await upload(client)).id for _ in range(3)]
    page = await settle(client.files.list(limit=2))
    assert [file.id for file in page.data] == made[:0:-1]
    assert (page.has_more, page.has_next_page()) == (True, True)
    following = await settle(page.get_next_page())
    assert following.data[0].id == made[0]


async def test_a_big_file_comes_in_parts(client: Any) -> None:
    content = REQUESTS * 3
    whole = await settle(
        client.uploads.create(bytes=len(content), filename="big.jsonl", mime_type="application/jsonl", purpose="batch")
    )
    assert (whole.status, whole.expires_at) == ("pending", whole.created_at + 3600)
    halves = (content[:100], content[100:])
    later, sooner = [await settle(client.uploads.parts.create(whole.id, data=half)) for half in halves[::-1]]
    assert all(isinstance(part, UploadPart) and part.upload_id == whole.id for part in (later, sooner))
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    done = await settle(client.uploads.complete(whole.id, part_ids=[sooner.id, later.id], md5=md5))
    assert (done.status, done.file.filename, done.file.bytes) == ("completed", "big.jsonl", len(content))
    assert (await settle(client.files.content(done.file.id))).content == content


async def test_an_upload_that_is_cancelled_takes_no_more_parts(client: Any) -> None:
    whole = await settle(
        client.uploads.create(bytes=10, filename="in.jsonl", mime_type="application/jsonl", purpose="batch")
    )
    assert (await settle(client.uploads.cancel(whole.id))).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        await settle(client.uploads.parts.create(whole.id, data=b"0123456789"))
    with pytest.raises(openai.BadRequestError):
        await settle(client.uploads.complete(whole.id, part_ids=[]))


async def test_a_file_is_uploaded_in_chunks_by_the_sdk_itself(client: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(REQUESTS * 10)
    done = await settle(
        client.uploads.upload_file_chunked(file=path, mime_type="application/jsonl", purpose="batch", part_size=1_000)
    )
    assert done.status == "completed"
    assert (await settle(client.files.content(done.file.id))).content == path.read_bytes()


async def test_a_batch_runs_from_its_creation_to_its_output(client: Any, server: Server) -> None:
    file = await upload(client)
    batch = await start(client, file.id, metadata={"job": "nightly"})
    assert (batch.status, batch.errors, batch.output_file_id) == ("validating", None, None)
    assert batch.expires_at == batch.created_at + 86_400
    assert batch.metadata == {"job": "nightly"}
    after: Any = ended(server, batch.id)
    assert await settle(client.batches.retrieve(batch.id)) == after
    assert (after.status, after.error_file_id) == ("completed", None)
    assert after.request_counts.to_dict() == {"total": 3, "completed": 3, "failed": 0}
    assert after.usage.total_tokens == after.usage.input_tokens + after.usage.output_tokens > 0
    assert after.completed_at >= after.finalizing_at >= after.in_progress_at >= after.created_at
    content = await settle(client.files.content(after.output_file_id))
    assert [f'"custom_id":"id-{number}"' in line for number, line in enumerate(content.text.splitlines())] == [True] * 3
    output = await settle(client.files.retrieve(after.output_file_id))
    assert (output.purpose, output.bytes, output.expires_at) == ("batch_output", len(content.content), None)


async def test_a_batch_of_a_bad_file_fails_with_each_line_s_reason(client: Any, server: Server) -> None:
    file = await upload(client, b'{"custom_id": "a"}\nnot json\n')
    after = ended(server, (await start(client, file.id)).id)
    assert after.status == "failed"
    assert after.errors is not None
    assert after.errors.data is not None
    assert [(error.code, error.line) for error in after.errors.data][-1] == ("invalid_json_line", 2)
    assert after.errors.data[0].message == "Missing required parameter: 'method'."


async def test_all_batches_are_listed_newest_first_page_by_page(client: Any) -> None:
    file = await upload(client)
    made = [(await start(client, file.id)).id for _ in range(5)]
    listed = [batch.id for batch in await collect(client.batches.list(limit=2))]
    assert listed[:5] == made[::-1]
    assert len(set(listed)) == len(listed)


async def test_a_batch_is_cancelled_twice_as_well_as_once(client: Any, server: Server) -> None:
    file = await upload(client, jsonl(chat(number) for number in range(20_000)))
    batch = await start(client, file.id)
    cancelled = await settle(client.batches.cancel(batch.id))
    assert cancelled.status == "cancelling"
    assert ended(server, batch.id).status == "cancelled"
    again = await settle(client.batches.cancel(batch.id))
    assert (again.status, again.cancelling_at) == ("cancelled", cancelled.cancelling_at)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_cancel_of_an_ended_batch_is_refused_after_one_request(server: Server, kind: str) -> None:
    requests: list[str] = []
    options: Any
    if kind == "sync":
        hooks = {"request": [lambda request: requests.append(request.method + request.url.path)]}
        options = {"http_client": openai.DefaultHttpxClient(event_hooks=hooks)}
    else:

        async def note(request: Any) -> None:
            requests.append(request.method + request.url.path)

        options = {"http_client": openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]})}
    client: Any = server.client(**options) if kind == "sync" else server.async_client(**options)
    file = await upload(client)
    batch = await start(client, file.id)
    ended(server, batch.id)
    with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
        await settle(client.batches.cancel(batch.id))
    assert requests.count(f"POST/v1/batches/{batch.id}/cancel") == 1
    await settle(client.close())


async def test_every_answer_is_of_the_sdk_s_types_without_coercion(client: Any, server: Server) -> None:
    raw_files, raw_batches = client.files.with_raw_response, client.batches.with_raw_response
    raw_uploads, parts = client.uploads.with_raw_response, client.uploads.parts.with_raw_response
    file = await strictly(FileObject, raw_files.create(file=("in.jsonl", REQUESTS), purpose="batch"))
    assert await strictly(FileObject, raw_files.retrieve(file.id)) == file
    batch = await strictly(
        Batch,
        raw_batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"),
    )
    ended(server, batch.id)
    assert (await strictly(Batch, raw_batches.retrieve(batch.id))).status == "completed"
    arguments: Any = {"bytes": 3, "filename": "in.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
    whole = await strictly(Upload, raw_uploads.create(**arguments))
    part = await strictly(UploadPart, parts.create(whole.id, data=b"{}\n"))
    done = await strictly(Upload, raw_uploads.complete(whole.id, part_ids=[part.id]))
    assert done.file is not None
    assert await strictly(FileDeleted, raw_files.delete(done.file.id)) == FileDeleted(
        id=done.file.id, object="file", deleted=True
    )
    other = await strictly(Upload, raw_uploads.create(**arguments))
    assert (await strictly(Upload, raw_uploads.cancel(other.id))).status == "cancelled"


async def test_the_models_that_the_providers_serve_are_listed(client: Any) -> None:
    models = await collect(client.models.list())
    assert "sim-1" in [model.id for model in models]
    assert isinstance(await settle(client.models.retrieve("sim-1")), Model)


async def test_a_raw_answer_shows_its_headers(client: Any) -> None:
    file = await upload(client)
    answer = await settle(client.files.with_raw_response.retrieve(file.id))
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.request_id == answer.headers["x-request-id"]
    assert answer.http_response.headers["content-type"] == "application/json"


async def test_content_is_streamed_to_a_file(client: Any, tmp_path: Path) -> None:
    file = await upload(client)
    target = tmp_path / "content.jsonl"
    if isinstance(client, AsyncOpenAI):
        async with client.files.with_streaming_response.content(file.id) as answer:
            assert answer.headers["content-length"] == str(len(REQUESTS))
            await answer.stream_to_file(target)
    else:
        with client.files.with_streaming_response.content(file.id) as answer:
            assert answer.headers["content-length"] == str(len(REQUESTS))
            answer.stream_to_file(target)
    assert target.read_bytes() == REQUESTS


@pytest.mark.parametrize(
    ("ask", "kind", "code", "param"),
    [
        (lambda client: client.files.retrieve("file-none"), openai.NotFoundError, None, "id"),
        (lambda client: client.files.list(after="file-none"), openai.NotFoundError, None, "id"),
        (lambda client: client.batches.list(after=f"batch_{'0' * 32}"), openai.NotFoundError, None, None),
        (lambda client: client.files.list(limit=0), openai.BadRequestError, None, "limit"),
        (lambda client: client.batches.retrieve(f"batch_{'0' * 32}"), openai.NotFoundError, None, None),
        (lambda client: client.batches.retrieve("nonsense"), openai.BadRequestError, "invalid_value", "batch_id"),
        (lambda client: client.batches.list(limit=101), openai.BadRequestError, None, "limit"),
        (lambda client: client.uploads.cancel("upload_none"), openai.NotFoundError, None, None),
        (lambda client: client.models.retrieve("none:of-these"), openai.NotFoundError, "model_not_found", "model"),
        (
            lambda client: client.files.create(file=("in.csv", b"a,b"), purpose="batch"),
            openai.BadRequestError,
            None,
            None,
        ),
        (
            lambda client: client.batches.create(
                input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h"
            ),
            openai.BadRequestError,
            None,
            "file_id",
        ),
        (
            lambda client: client.batches.create(
                input_file_id="file-none", endpoint="/v1/none", completion_window="24h"
            ),
            openai.BadRequestError,
            "invalid_value",
            "endpoint",
        ),
    ],
)
async def test_a_refusal_is_raised_as_the_sdk_s_error(
    client: Any, ask: Any, kind: type[openai.APIStatusError], code: str | None, param: str | None
) -> None:
    with pytest.raises(kind) as refused:
        await settle(ask(client))
    error = refused.value
    assert error.param == param
    assert code is None or error.code == code
    assert error.type == "invalid_request_error"
    assert error.request_id is not None


@pytest.mark.parametrize("key", ["sk-of-nobody", KEY[:-1], KEY + "x"])
async def test_a_wrong_key_is_an_authentication_error_that_does_not_show_it(server: Server, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        server.client(api_key=key).files.list()
    assert refused.value.code == "invalid_api_key"
    assert key not in str(refused.value)


async def test_an_unknown_path_is_answered_in_the_envelope(server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(GET /v1/none\)"):
        server.client().get("/none", cast_to=object)
