from __future__ import annotations

import inspect
from typing import Any

import pytest
from redis.crc import key_slot

from batchord.state import keys
from batchord.state.keys import Shard
from tests.unit.fake_state import is_documented

BATCH_ID = f"batch_{0:032x}"
ARGUMENTS = {
    "batch_id": BATCH_ID,
    "file_id": f"file-{0:022}",
    "upload_id": f"upload_{0:032x}",
    "tenant": "team-a",
    "digest": "0" * 64,
    "provider": "my_local-1",
    "ref": Shard(BATCH_ID, "my_local-1", 12),
    "step": "finalize",
}


def names_of(function: Any) -> list[str]:
    """Give the names that a function of `keys` makes."""
    made = function(**{name: ARGUMENTS[name] for name in inspect.signature(function).parameters})
    return [made] if isinstance(made, str) else list(made)


FUNCTIONS = [
    function
    for _, function in inspect.getmembers(keys, inspect.isfunction)
    if function.__module__ == keys.__name__ and function is not keys.shard_prefix
]
CONSTANTS = [value for name, value in vars(keys).items() if name.isupper() and isinstance(value, str)]


@pytest.mark.parametrize("name", [*CONSTANTS, *(name for function in FUNCTIONS for name in names_of(function))])
def test_every_key_is_in_the_table_of_keys(name: str) -> None:
    assert is_documented(name)


def test_a_key_that_is_not_in_the_table_is_told() -> None:
    assert not is_documented(f"{keys.batch(BATCH_ID)}:surprise")
    assert not is_documented("unacked")


def test_no_two_functions_make_the_same_key() -> None:
    names = [name for function in FUNCTIONS for name in names_of(function)]
    assert len(set(names)) == len(names)


def test_all_keys_of_a_batch_are_in_one_slot() -> None:
    of_a_batch = [
        function for function in FUNCTIONS if {"batch_id", "ref"} & inspect.signature(function).parameters.keys()
    ]
    names = [name for function in of_a_batch for name in names_of(function)]
    assert {key_slot(name.encode()) for name in names} == {key_slot(BATCH_ID.encode())}


def test_the_key_of_a_shard_is_its_prefix_and_its_number() -> None:
    ref = Shard(BATCH_ID, "local", 3)
    assert keys.shard(ref) == keys.shard_prefix(BATCH_ID, "local") + "3"


def test_the_chord_of_a_shard_is_named_by_batch_provider_and_number() -> None:
    assert Shard("batch_a", "local", 3).gid == "batch_a/local/3"
