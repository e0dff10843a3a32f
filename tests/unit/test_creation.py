from __future__ import annotations

from typing import Any

import pytest

from batchord.contract import ENDPOINTS
from batchord.creation import Terms, check_batch_id
from batchord.errors import InvalidRequestError
from batchord.lifecycle import Status

CHAT = "/v1/chat/completions"
ENDPOINTS_LISTED = (
    "'/v1/responses', '/v1/chat/completions', '/v1/embeddings', '/v1/completions', '/v1/moderations', "
    "'/v1/images/generations', '/v1/images/edits', '/v1/videos', and '/v1/messages'"
)


def terms(**changes: Any) -> Terms:
    return Terms(**{"endpoint": CHAT, "completion_window": "24h", **changes})


@pytest.mark.parametrize(
    ("changes", "message", "param", "code"),
    [
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
            {"completion_window": "48h"},
            "Invalid value: '48h'. Supported values are: '24h' and '1h'.",
            "completion_window",
            "invalid_value",
        ),
        (
            {"metadata": {str(number): "" for number in range(17)}},
            (
                "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an "
                "object with 17 properties instead."
            ),
            "metadata",
            "object_above_max_properties",
        ),
        (
            {"metadata": {"k" * 65: ""}},
            (
                "Invalid 'metadata': property name too long. Expected a string with maximum length 64, but got a "
                "string with length 65 instead."
            ),
            "metadata",
            "property_name_above_max_length",
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
            {"metadata": {"key": 7}},
            "Invalid type for 'metadata.key': expected a string, but got 7 instead.",
            "metadata.key",
            "invalid_type",
        ),
    ],
)
def test_terms_that_the_contract_does_not_allow_are_refused_in_its_words(
    changes: dict[str, Any], message: str, param: str, code: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        terms(**changes).check(["24h", "1h"])
    assert (str(refused.value), refused.value.param, refused.value.code) == (message, param, code)


@pytest.mark.parametrize("endpoint", [None, *ENDPOINTS])
@pytest.mark.parametrize(
    "metadata", [None, {}, {str(number): "v" * 512 for number in range(16)}, {"k" * 64: "", "": "😀" * 512}]
)
def test_terms_within_the_bounds_are_taken(endpoint: str | None, metadata: dict[str, str] | None) -> None:
    terms(endpoint=endpoint, metadata=metadata).check(["24h"])


def test_any_window_may_be_asked_for_where_the_operator_names_none() -> None:
    terms(completion_window="30d").check()
    with pytest.raises(InvalidRequestError) as refused:
        terms(completion_window="soon").check()
    assert refused.value.param == "completion_window"


def test_a_value_too_long_to_show_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        terms(endpoint="x" * 10_000).check()
    assert len(str(refused.value)) < 1_000


def test_a_batch_begins_with_its_terms_and_its_whole_window() -> None:
    batch = terms(metadata={"a": "b"}, completion_window="1h", output_expires_after_s=3_600).batch(
        "batch_1", "file-1", 1_000.9, "team"
    )
    assert (batch.id, batch.tenant, batch.input_file_id, batch.endpoint) == ("batch_1", "team", "file-1", CHAT)
    assert (batch.status, batch.created_at, batch.expires_at) == (Status.VALIDATING, 1_000, 4_600)
    assert (batch.metadata, batch.output_expires_after_s, batch.round) == ({"a": "b"}, 3_600, 0)


@pytest.mark.parametrize("batch_id", ["batch_" + "0" * 32, "batch-nightly-2026-11-21", "batch1"])
def test_an_id_of_the_caller_is_taken(batch_id: str) -> None:
    check_batch_id(batch_id)


@pytest.mark.parametrize(
    "batch_id", ["", "batch", "nightly", "batch_ä", "batch/1", "batch}", "batch_1\n", "batch" * 13]
)
def test_an_id_that_the_api_could_not_show_is_refused(batch_id: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_batch_id(batch_id)
    assert (refused.value.param, refused.value.code) == ("batch_id", "invalid_value")
