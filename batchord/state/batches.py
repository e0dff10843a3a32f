"""The batch's hash: created once, moved by the lifecycle's transitions, read as a `BatchRecord`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from batchord.contract import DEFAULT_TENANT, BatchObject, RequestCounts, Usage, problems_from_json
from batchord.lifecycle import Status
from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, is_one, mapping, nothing, scored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from batchord.lifecycle import Transition

_CREATE, _TRANSITION, _START = Script("create"), Script("transition"), Script("start")
_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens")
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """The shards of one batch for one provider: planned in all, opened so far, and the lines of those open now."""

    planned: int
    opened: int
    open_lines: int


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as the fleet knows it: the client's view, and what only the fleet needs."""

    batch: BatchObject
    shards: Mapping[str, ShardCounts]
    cancelled_lines: int
    expired_lines: int
    retries: int
    started_ms: int
    ended_ms: int

    @property
    def recorded(self) -> int:
        """How many lines have an outcome so far."""
        counts = self.batch.request_counts
        return counts.completed + counts.failed + self.cancelled_lines + self.expired_lines

    def is_past_deadline(self, now: float) -> bool:
        """Whether the completion window is over."""
        return now >= self.batch.expires_at


def create(batch: BatchObject) -> Call[bool]:
    """Write a new batch; False where it was there already."""
    fields: dict[str, Argument] = {
        "id": batch.id,
        "tenant": batch.tenant,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
    }
    if batch.metadata is not None:
        fields["metadata"] = msgspec.json.encode(batch.metadata)
    if batch.output_expires_after_s is not None:
        fields["output_expires_after_s"] = batch.output_expires_after_s
    return _CREATE.call([keys.batch(batch.id)], _flat(fields), is_one)


def activate(batch_id: str, now: float) -> Call[None]:
    """Put a batch on the list that the sweep walks; done before `create`, so that no batch is ever off the list."""
    return Call(("ZADD", keys.ACTIVE, now, batch_id), nothing)


def deactivate(batch_id: str) -> Call[None]:
    """Take an ended batch off the list that the sweep walks."""
    return Call(("ZREM", keys.ACTIVE, batch_id), nothing)


def active() -> Call[list[tuple[str, float]]]:
    """Give the batches that have not ended, oldest first, each with the time when it was put on the list."""
    return Call(("ZRANGE", keys.ACTIVE, 0, -1, "WITHSCORES"), scored)


def transition(batch_id: str, move: Transition, now: float, fields: Mapping[str, Argument] | None = None) -> Call[bool]:
    """Move a batch; False where its status does not allow it."""
    args = (len(move.sources), *move.sources, move.target, move.stamp, int(now), *_flat(fields or {}))
    return _TRANSITION.call([keys.batch(batch_id)], args, is_one)


def start(batch_id: str, now: float, fields: Mapping[str, Argument], shards: Mapping[str, Sequence[int]]) -> Call[bool]:
    """End planning; `shards` gives for each provider the number of lines of each of its shards.

    False where the batch is not being validated any more.
    """
    flat = _flat(fields)
    args: list[Argument] = [int(now), len(flat), *flat]
    for provider, lines in shards.items():
        args += [provider, len(lines), *lines]
    lists = [keys.lines(batch_id, provider) for provider in shards]
    return _START.call([keys.batch(batch_id), *lists], args, is_one)


def read(batch_id: str) -> Call[BatchRecord | None]:
    """Read a batch, or None where there is none."""
    return Call(("HGETALL", keys.batch(batch_id)), _record)


def retire(batch_id: str, providers: Iterable[str]) -> list[Call[None]]:
    """Delete what an ended batch needs no more."""
    return [Call(("DEL", keys.lines(batch_id, provider)), nothing) for provider in providers]


def expire(batch_id: str, after_s: int) -> Call[None]:
    """Let an ended batch's hash go after its retention."""
    return Call(("EXPIRE", keys.batch(batch_id), after_s), nothing)


def durable(timeout_ms: int) -> Call[bool]:
    """Wait until what this connection wrote before is on the server's disk (needs its append-only file).

    False where it was not by then.
    """
    return Call(("WAITAOF", 1, 0, timeout_ms), lambda answer: answer[0] >= 1)


def _flat(fields: Mapping[str, Argument]) -> list[Argument]:
    return [word for pair in fields.items() for word in pair]


def _record(answer: Any) -> BatchRecord | None:
    return _from_fields(fields) if (fields := mapping(answer)) else None


def _from_fields(fields: Mapping[str, str]) -> BatchRecord:
    def number(name: str) -> int:
        return int(fields.get(name, 0))

    providers = [name.removeprefix("shards:") for name in fields if name.startswith("shards:")]
    return BatchRecord(
        batch=_object(fields),
        shards={
            p: ShardCounts(*(number(f"{name}:{p}") for name in ("shards", "next", "open_lines"))) for p in providers
        },
        cancelled_lines=number("cancelled"),
        expired_lines=number("expired"),
        retries=number("retries"),
        started_ms=number("started_ms"),
        ended_ms=number("ended_ms"),
    )


def _object(fields: Mapping[str, str]) -> BatchObject:
    times = {f"{name}_at": int(fields[f"{name}_at"]) for name in _TIMES if f"{name}_at" in fields}
    return BatchObject(
        id=fields["id"],
        tenant=fields.get("tenant", DEFAULT_TENANT),
        round=int(fields.get("round", 0)),
        output_expires_after_s=int(life_s) if (life_s := fields.get("output_expires_after_s")) else None,
        endpoint=fields["endpoint"],
        input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"],
        status=Status(fields["status"]),
        created_at=int(fields["created_at"]),
        expires_at=int(fields["expires_at"]),
        model=fields.get("model") or None,
        errors=problems_from_json(fields["errors"]) if "errors" in fields else (),
        output_file_id=fields.get("output_file_id"),
        error_file_id=fields.get("error_file_id"),
        request_counts=RequestCounts(
            total=int(fields.get("total", 0)),
            completed=int(fields.get("completed", 0)),
            failed=int(fields.get("failed", 0)),
        ),
        usage=Usage(**{name: int(fields.get(name, 0)) for name in _USAGE}),
        metadata=msgspec.json.decode(fields["metadata"]) if "metadata" in fields else None,
        **times,
    )
