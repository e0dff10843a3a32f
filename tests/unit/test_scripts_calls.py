from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchord.errors import StateUnavailableError
from batchord.state import batches, leases, queues, shards
from batchord.state.calls import Call, Script, mapping, pairs, scored, text
from batchord.state.connection import BlockingState, StateError, client_url
from batchord.state.shards import OpenShard
from tests.unit.fake_state import FakeState, missing, opened, record, record_of, started, succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

SCORED = [("a", 1.5), ("b", 2.0)]


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def state(request: pytest.FixtureRequest) -> BlockingState:
    return FakeState(request.param)


@pytest.mark.parametrize("answer", [[[b"a", 1.5], [b"b", 2.0]], [(b"a", 1.5), (b"b", 2.0)], [b"a", b"1.5", b"b", b"2"]])
def test_scores_are_read_in_the_forms_of_both_protocols(answer: Any) -> None:
    assert scored(answer) == SCORED


@pytest.mark.parametrize("answer", [{b"a": b"1", "ä".encode(): b"2"}, [b"a", b"1", "ä".encode(), b"2"]])
def test_a_hash_is_read_in_the_forms_of_both_protocols(answer: Any) -> None:
    assert mapping(answer) == {"a": "1", "ä": "2"}


@pytest.mark.parametrize("answer", [[], {}, ()])
def test_an_empty_answer_has_no_pairs(answer: Any) -> None:
    assert pairs(answer) == []


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        pairs([b"a", b"1", b"b"])


@pytest.mark.parametrize(("answer", "read"), [(None, None), (b"", ""), ("é".encode(), "é")])
def test_a_string_is_read_or_none(answer: bytes | None, read: str | None) -> None:
    assert text(answer) == read


@pytest.mark.parametrize(
    ("url", "redis_py"),
    [
        ("redis://h:6379/1", "redis://h:6379/1"),
        ("rediss://u:p@h/0", "rediss://u:p@h/0"),
        ("unix:///d/v.sock?db=2", "unix:///d/v.sock?db=2"),
        ("redis+socket:///d/v.sock?virtual_host=2", "unix:///d/v.sock?db=2"),
    ],
)
def test_the_url_that_celery_takes_serves_redis_py_too(url: str, redis_py: str) -> None:
    assert client_url(url) == redis_py


def test_both_protocols_read_batches_and_open_shards_alike(state: BlockingState) -> None:
    shard = opened(state, 2)
    state.run(batches.activate(shard.batch_id, 7.5))
    assert state.run(batches.active()) == [(shard.batch_id, 7.5)]
    assert state.run(shards.progress(shard)) == OpenShard(2, 0)
    assert [number for number, _ in state.run(shards.open_numbers(shard.batch_id, "local"))] == [0]
    assert record_of(state, shard.batch_id).batch.request_counts.total == 2


def test_answers_come_in_the_order_of_the_calls(state: BlockingState) -> None:
    shard = opened(state, 3)
    calls = [record(shard, succeeded(*indices)) for indices in ([0], [], [0], [1, 2])]
    assert state.run_all(calls) == [1, 0, 0, 2]


def test_no_calls_have_no_answers(state: BlockingState) -> None:
    assert state.run_all([]) == []


def test_a_script_that_the_server_lost_is_loaded_again(state: BlockingState) -> None:
    shard = opened(state, 1)
    for script in Script.loaded.values():
        assert state.run(Call(("SCRIPT", "EXISTS", script.sha), list)) == [True]
    state.run(Call(("SCRIPT", "FLUSH"), bool))
    assert missing(state, shard) == [0]


def test_a_refused_command_is_a_fault_that_names_the_reason(state: BlockingState) -> None:
    batch_id = started(state, {"local": [1]})
    with pytest.raises(StateError, match="wrong number of arguments"):
        state.run(Call(("GET",), text))
    assert record_of(state, batch_id).batch.id == batch_id


def test_a_refused_call_does_not_stop_those_beside_it(state: BlockingState) -> None:
    shard = opened(state, 1)
    with pytest.raises(StateError):
        state.run_all([Call(("GET",), int), record(shard, succeeded(0))])
    assert record_of(state, shard.batch_id).recorded == 1


def test_a_queue_tells_how_many_messages_wait_until_it_is_cleared(state: BlockingState) -> None:
    for message in "abc":
        state.run(Call(("LPUSH", "provider.local", message), int))
    state.run(Call(("HSET", "unacked", "tag", "message"), int))
    assert state.run(queues.length("provider.local")) == 3
    for _ in range(2):
        state.run(queues.clear(["control", "provider.local"]))
    assert state.run_all([queues.length("provider.local"), Call(("EXISTS", "unacked"), int)]) == [0, 0]


class Forgetful(FakeState):
    """A client of a server that restarts between the loading of the scripts and the second try."""

    def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        self._redis.script_flush()
        return super()._send(calls)


def test_scripts_lost_again_at_once_pass_for_a_server_that_does_not_answer_for_now() -> None:
    with pytest.raises(StateUnavailableError):
        Forgetful().run(leases.alive())
