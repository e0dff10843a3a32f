"""What the served schema says of every route; whether the answers are so is seen where the whole server runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from app import create_app
from batchord.settings import Settings

SCHEMA = create_app(Settings()).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in SCHEMA["paths"].items()
    for method, operation in item.items()
}


def test_every_reference_leads_somewhere() -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(SCHEMA)))
    assert names - set(SCHEMA["components"]["schemas"]) == set()


def test_every_operation_has_a_name_of_its_own() -> None:
    names = Counter(operation["operationId"] for operation in OPERATIONS.values())
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_how_its_errors_look(name: str) -> None:
    responses: dict[str, Any] = OPERATIONS[name]["responses"]
    assert "422" not in responses
    for status in ("4XX", "5XX"):
        schema = {"$ref": "#/components/schemas/ErrorModel"}
        assert responses[status]["content"] == {"application/json": {"schema": schema}}


@pytest.mark.parametrize("name", OPERATIONS)
def test_exactly_the_operations_under_v1_need_a_key(name: str) -> None:
    assert ("ApiKeyAuth" in str(OPERATIONS[name].get("security"))) == (" /v1/" in name)


def test_an_error_has_all_four_keys_always() -> None:
    error = SCHEMA["components"]["schemas"]["ErrorBody"]
    assert set(error["required"]) == {"message", "type", "param", "code"}
