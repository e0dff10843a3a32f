"""A `BlockingState` on fakeredis with Lua, and the batches and shards that the tests of the scripts begin with."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import fakeredis

from batchord.contract import BatchObject, new_batch_id
from batchord.lifecycle import Outcome, Status
from batchord.state import batches, keys, shards
from batchord.state.calls import Call, mapping, scored
from batchord.state.connection import BlockingState
from batchord.state.keys import Shard
from batchord.state.shards import Contact, LineRecord, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CREATED_AT: Final = 1_000
DEADLINE: Final = 4_000_000_000
CLAIM_S: Final = 3_000
"""How long a claim holds: far longer than any test, which lets time pass by `pass_time`."""
WIDE: Final = 1_000_000
"""A window with room for every shard."""


class FakeState(BlockingState):
    """The client of producers, connected to a Redis in this process that is empty at first and knows no script."""

    def __init__(self, protocol: int = 3) -> None:
        self._redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=protocol)


def batch_object(**changes: Any) -> BatchObject:
    batch = BatchObject(
        id=new_batch_id(),
        endpoint="/v1/chat/completions",
        input_file_id="file-abc",
        completion_window="24h",
        status=Status.VALIDATING,
        created_at=CREATED_AT,
        expires_at=DEADLINE,
    )
    return batch.model_copy(update=changes)


def created(state: BlockingState, status: Status = Status.VALIDATING) -> str:
    """Give the id of a new batch, put into this status without the way there."""
    batch = batch_object(status=status)
    assert state.run(batches.create(batch))
    return batch.id


def started(state: BlockingState, shard_lines: Mapping[str, Sequence[int]]) -> str:
    """Give the id of a new batch in progress with these shards."""
    batch_id = created(state)
    total = sum(sum(lines) for lines in shard_lines.values())
    assert state.run(batches.start(batch_id, CREATED_AT, {"total": total}, shard_lines))
    return batch_id


def opened(state: BlockingState, *shard_lines: int, provider: str = "local") -> Shard:
    """Give the first shard, open, of a new batch whose shards for one provider have these lines."""
    batch_id = started(state, {provider: shard_lines})
    assert state.run(shards.open_next(batch_id, provider, WIDE)) == (0, shard_lines[0])
    return Shard(batch_id, provider, 0)


def succeeded(*indices: int) -> list[LineRecord]:
    return [LineRecord(index, Outcome.SUCCEEDED, b"{}") for index in indices]


def record(shard: Shard, records: Sequence[LineRecord], worker: str = "w") -> Call[int]:
    return shards.record(shard, worker, CLAIM_S, records)


def begin(state: BlockingState, shard: Shard, worker: str, *indices: int) -> list[Verdict]:
    """Begin lines as a worker that has been in touch with Redis for long."""
    return state.run(shards.begin(shard, worker, CLAIM_S, long_contact(state), indices))


def missing(state: BlockingState, shard: Shard) -> list[int]:
    """Give what is missing, as a worker that has been in touch with Redis for long."""
    return state.run(shards.missing(shard, CLAIM_S, long_contact(state))).indices


def late(state: BlockingState, batch_id: str) -> int:
    """Give how many answers of a batch came too late."""
    return int(fields(state, keys.batch(batch_id)).get("late", 0))


def long_contact(state: BlockingState) -> Contact:
    return Contact(0, time_of(state))


def time_of(state: BlockingState) -> float:
    """Read the clock of Redis."""
    return state.run(Call(("TIME",), lambda answer: int(answer[0]) + int(answer[1]) / 1e6))


def pass_time(state: BlockingState, seconds: float) -> None:
    """Let time pass: nobody can set the clock of Redis, so all that happened so far moves into the past."""
    for name in key_names(state):
        if ":owners:" in name:
            _shift(state, name, fields(state, name), seconds)
        elif ":open:" in name or name == keys.WORKERS:
            for member, score in state.run(Call(("ZRANGE", name, 0, -1, "WITHSCORES"), scored)):
                state.run(Call(("ZADD", name, score - seconds, member), int))
        elif re.fullmatch(r"batchord:\{batch_\w+\}", name):
            times = {field: at for field, at in fields(state, name).items() if field.endswith("expires_at")}
            _shift(state, name, times, seconds)


def _shift(state: BlockingState, name: str, times: Mapping[str, str], seconds: float) -> None:
    for field, at in times.items():
        state.run(Call(("HSET", name, field, f"{float(at) - seconds:.6f}".removesuffix(".000000")), int))


def move(state: BlockingState, batch_id: str, status: Status) -> None:
    """Put a batch into a status without the way there."""
    state.run(Call(("HSET", keys.batch(batch_id), "status", status), bool))


def record_of(state: BlockingState, batch_id: str) -> batches.BatchRecord:
    record = state.run(batches.read(batch_id))
    assert record is not None
    return record


def fields(state: BlockingState, key: str) -> dict[str, str]:
    """Read a hash."""
    return state.run(Call(("HGETALL", key), mapping))


def key_names(state: BlockingState) -> set[str]:
    """Read the names of all keys."""
    return state.run(Call(("KEYS", "*"), lambda names: {name.decode() for name in names}))


def contents(state: BlockingState) -> dict[str, Any]:
    """Read all that the server keeps."""
    commands = {"hash": ("HGETALL",), "list": ("LRANGE", 0, -1), "zset": ("ZRANGE", 0, -1, "WITHSCORES")}
    found: dict[str, Any] = {}
    for name in sorted(key_names(state)):
        kind = state.run(Call(("TYPE", name), bytes.decode))
        command, *arguments = commands.get(kind, ("GET",))
        found[name] = state.run(Call((str(command), name, *arguments), lambda answer: answer))
    return found


def is_documented(name: str) -> bool:
    """Whether the table of `batchord.state.keys` has a row for this key."""
    return any(row.fullmatch(name) for row in _DOCUMENTED)


def _pattern(row: str) -> re.Pattern[str]:
    parts = {
        r"\{batch\}": r"\{batch_\w{32}\}",
        r"\{file\}": r"\{file-\w{22}\}",
        r"\{upload\}": r"\{upload_\w{32}\}",
        "<provider>": "[a-z0-9_-]+",
        "<t>": "[a-z0-9_-]+",
        "<n>": r"\d+",
        "<step>": "[a-z]+",
        "<digest>": "[0-9a-f]{64}",
    }
    pattern = re.escape(row)
    for part, form in parts.items():
        pattern = pattern.replace(part, form)
    return re.compile(pattern)


_DOCUMENTED: Final = [_pattern(row) for row in re.findall(r"^\| (batchord:\S+) \|", keys.__doc__ or "", re.MULTILINE)]
