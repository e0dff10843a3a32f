"""Orders for a batch that are refused over HTTP, each in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.state import keys
from batchord.state.calls import Call
from tests.integration.api import Api, open_api
from tests.integration.api_batches import (
    REQUESTS,
    batch_ids,
    file_ids,
    order,
    refusal,
    stored,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from batchord.embedded import EmbeddedValkey

ENDPOINTS_LISTED = (
    "'/v1/responses', '/v1/chat/completions', '/v1/embeddings', '/v1/completions', '/v1/moderations', "
    "'/v1/images/generations', '/v1/images/edits', '/v1/videos', and '/v1/messages'"
)


@pytest.fixture
async def api(valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(valkey.url, tmp_path, completion_windows="24h,1h") as api:
        yield api


MISSING = "missing_required_parameter"
TYPE = "invalid_type"


@pytest.mark.parametrize(
    ("changes", "message", "param", "code"),
    [
        ({"endpoint": ...}, "Missing required parameter: 'endpoint'.", "endpoint", MISSING),
        ({"completion_window": ...}, "Missing required parameter: 'completion_window'.", "completion_window", MISSING),
        ({"input_file_id": None}, "Missing required parameter: 'input_file_id'.", "input_file_id", MISSING),
        (
            {"endpoint": "/v1/nonsense"},
            f"Invalid value: '/v1/nonsense'. Supported values are: {ENDPOINTS_LISTED}.",
            "endpoint",
            "invalid_value",
        ),
        (
            {"endpoint": ""},
            f"Invalid value: ''. Supported values are: {ENDPOINTS_LISTED}.",
            "endpoint",
            "invalid_value",
        ),
        (
            {"endpoint": 7},
            "Invalid type for 'endpoint': expected a string, but got an integer instead.",
            "endpoint",
            TYPE,
        ),
        *(
            (
                {"completion_window": window},
                f"Invalid value: '{window}'. Supported values are: '24h' and '1h'.",
                "completion_window",
                "invalid_value",
            )
            for window in ("48h", "", "1d")
        ),
        (
            {"metadata": "text"},
            "Invalid type for 'metadata': expected an object, but got a string instead.",
            "metadata",
            TYPE,
        ),
        (
            {"metadata": {"tags": ["a"]}},
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
            "metadata.tags",
            TYPE,
        ),
        (
            {"metadata": {"n": 1}},
            "Invalid type for 'metadata.n': expected a string, but got an integer instead.",
            "metadata.n",
            TYPE,
        ),
        (
            {"metadata": {"key": "v" * 513}},
            (
                "Invalid 'metadata.key': string too long. Expected a string with maximum length 512, but got a string "
                "with length 513 instead."
            ),
            "metadata.key",
            "string_above_max_length",
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 3_599}},
            (
                "Invalid 'output_expires_after.seconds': integer below minimum value. Expected a value >= 3600, but "
                "got 3599 instead."
            ),
            "output_expires_after.seconds",
            "integer_below_min_value",
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}},
            (
                "Invalid 'output_expires_after.seconds': integer above maximum value. Expected a value <= 2592000, but "
                "got 2592001 instead."
            ),
            "output_expires_after.seconds",
            "integer_above_max_value",
        ),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": "3600"}},
            "Invalid type for 'output_expires_after.seconds': expected an integer, but got a string instead.",
            "output_expires_after.seconds",
            TYPE,
        ),
        (
            {"output_expires_after": {"seconds": 3_600}},
            "Missing required parameter: 'output_expires_after.anchor'.",
            "output_expires_after.anchor",
            MISSING,
        ),
        (
            {"input_file_id": "file-unknown"},
            "Cannot find file file-unknown, or project default does not have access to it.",
            "file_id",
            None,
        ),
        (
            {"requests": REQUESTS, "input_file_id": "file-a"},
            "Give either 'input_file_id' or 'requests', not both.",
            "requests",
            "invalid_value",
        ),
        (
            {"input_file_id": "file-a", "model": "m"},
            "'model' goes with 'requests'; the lines of a file name their own.",
            "model",
            "invalid_value",
        ),
        (
            {"requests": []},
            (
                "Invalid 'requests': empty array. Expected an array with minimum length 1, but got an empty array "
                "instead."
            ),
            "requests",
            "empty_array",
        ),
        (
            {"requests": [{}] * 10_001},
            (
                "Invalid 'requests': array too long. Expected an array with maximum length 10000, but got an array "
                "with length 10001 instead."
            ),
            "requests",
            "array_above_max_length",
        ),
        (
            {"requests": [*REQUESTS, {"custom_id": "c"}]},
            "Missing required parameter: 'requests[2].body'.",
            "requests[2].body",
            MISSING,
        ),
        (
            {"requests": [*REQUESTS, {"custom_id": "c", "body": []}]},
            "Invalid type for 'requests[2].body': expected an object, but got an array instead.",
            "requests[2].body",
            TYPE,
        ),
        (
            {"requests": [*REQUESTS, {"custom_id": "c", "body": {"messages": []}}]},
            "requests[2].body.model: Model parameter is required.",
            "requests[2].body.model",
            "invalid_request",
        ),
    ],
)
async def test_a_bad_order_is_refused_in_the_contracts_words_and_leaves_nothing(
    api: Api, changes: dict[str, Any], message: str, param: str, code: str | None
) -> None:
    body = {name: value for name, value in {**await order(api), **changes}.items() if value is not ...}
    if "requests" in changes and "input_file_id" not in changes:
        del body["input_file_id"]
    before = await file_ids(api)
    answer = await api.post("/v1/batches", json=body)
    assert (answer.status_code, answer.json()) == (400, refusal(message, param, code))
    assert (await batch_ids(api), await file_ids(api)) == ([], before)


async def test_a_file_of_another_purpose_is_no_input(api: Api) -> None:
    body = await order(api, input_file_id=await stored(api, purpose="user_data"))
    answer = await api.post("/v1/batches", json=body)
    message = "Invalid 'input_file_id': expected a file of purpose 'batch', not of 'user_data'."
    assert (answer.status_code, answer.json()) == (400, refusal(message, "input_file_id", "invalid_value"))


async def test_an_expired_file_is_no_input(api: Api) -> None:
    file_id = await stored(api)
    await api.backend.state.run(Call(("HSET", keys.file(file_id), "expires_at", 1), bool))
    answer = await api.post("/v1/batches", json=await order(api, input_file_id=file_id))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file_id")
