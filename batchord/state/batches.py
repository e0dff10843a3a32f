"""The batch's hash: created once, moved by the lifecycle's transitions, read as a `BatchRecord`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.contract import (
    DEFAULT_TENANT,
    BatchObject,
    OutcomePart,
    RequestCounts,
    Usage,
    problems_from_json,
    produced_file_id,
)
from batchord.lifecycle import Status
from batchord.state import keys, listings
from batchord.state.calls import Argument, Call, Script, is_one, mapping, nothing, scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchord.lifecycle import Transition

_CREATE, _TRANSITION, _START, _DEACTIVATE = map(Script, ("create", "transition", "start", "deactivate"))
_USAGE = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens")
_FILES: Final[dict[OutcomePart, str]] = {"output": "output_file_id", "errors": "error_file_id"}
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """The shards of one round of a batch for one provider, and the lines of those that are open now.

    They are numbered from `first`; `planned` and `opened` are the numbers after the last planned and the last opened.
    """

    planned: int
    opened: int
    open_lines: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as the fleet knows it: the client's view, and what only the fleet needs.

    `kept_expired_lines` are those that expired in an earlier round and were not asked for since; `files` are the ids of
    the files of the last round that ended, which is `produced_round`, None if none has; `selection` is the path of what
    the round's retry was asked for. One that is `removing` is nobody's any more. `late` answers were dropped: their
    workers had stood still, and others had taken their lines over. The answers of known price cost `cost_nanos`
    nano-dollars, in all rounds.
    """

    batch: BatchObject
    shards: Mapping[str, ShardCounts]
    cancelled_lines: int
    expired_lines: int
    retries: int
    started_ms: int
    ended_ms: int
    kept_expired_lines: int = 0
    files: Mapping[OutcomePart, str] = field(default_factory=dict)
    produced_round: int | None = None
    selection: str = ""
    removing: bool = False
    late: int = 0
    cost_nanos: int = 0

    @property
    def has_started(self) -> bool:
        """Whether the batch's round has been planned: a line of it may have been sent."""
        return self.batch.in_progress_at is not None

    @property
    def recorded(self) -> int:
        """How many lines have an outcome so far."""
        counts = self.batch.request_counts
        return counts.completed + counts.failed + self.cancelled_lines + self.expired_lines

    @property
    def is_over_budget(self) -> bool:
        """Whether the batch has cost all that it may cost, so that nothing more is sent."""
        most = self.batch.max_cost_nanos
        return most is not None and self.cost_nanos >= most

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
    if batch.once is not None:
        fields["once"] = batch.once
    if batch.max_cost_nanos is not None:
        fields["max_cost"] = batch.max_cost_nanos
    if batch.dedupe is not None:
        fields["dedupe"] = int(batch.dedupe)
    return _CREATE.call([keys.batch(batch.id)], _flat(fields), is_one)


def limit_cost(batch_id: str, max_cost_nanos: int) -> Call[None]:
    """Give a batch another budget; what it has cost so far counts."""
    return Call(("HSET", keys.batch(batch_id), "max_cost", max_cost_nanos), nothing)


def enter(batch: BatchObject, now: float) -> list[Call[Any]]:
    """Write a new batch and put it on the lists, in an order in which a list may name one that is not there yet."""
    listed = listings.note(keys.tenant_batches(batch.tenant), batch.id, now)
    return [activate(batch.id, now), listed, create(batch)]


def take_back(batch: BatchObject) -> list[Call[None]]:
    """Undo `enter`, for a batch that nobody was told of and that no step has looked at."""
    return [
        Call(("DEL", keys.batch(batch.id)), nothing),
        listings.drop(keys.tenant_batches(batch.tenant), [batch.id]),
        Call(("ZREM", keys.ACTIVE, batch.id), nothing),
    ]


def activate(batch_id: str, now: float) -> Call[None]:
    """Put a batch on the list that the sweep walks; done before `create`, so that no batch is ever off the list."""
    return Call(("ZADD", keys.ACTIVE, now, batch_id), nothing)


def active_since(batch_id: str) -> Call[float | None]:
    """Give when a batch was put on the list that the sweep walks; None where it is not there."""
    return Call(("ZSCORE", keys.ACTIVE, batch_id), lambda answer: None if answer is None else float(answer))


def deactivate(batch_id: str, since: float) -> Call[bool]:
    """Take a batch off the list that the sweep walks; False where it was put there again after `since`."""
    return _DEACTIVATE.call([keys.ACTIVE], (batch_id, since), is_one)


def listed_at(tenant: str, batch_ids: Sequence[str]) -> Call[list[float | None]]:
    """Give for each batch when it was put on the tenant's listing; None where it is not the tenant's."""
    command = ("ZMSCORE", keys.tenant_batches(tenant), *batch_ids)
    return Call(command, lambda answer: [None if score is None else float(score) for score in answer])


def active() -> Call[list[tuple[str, float]]]:
    """Give the batches that have not ended, oldest first, each with the time when it was put on the list."""
    return Call(("ZRANGE", keys.ACTIVE, 0, -1, "WITHSCORES"), scored)


def transition(
    batch_id: str,
    move: Transition,
    now: float,
    fields: Mapping[str, Argument] | None = None,
    *,
    round_: int | None = None,
) -> Call[bool]:
    """Move a batch, in any round or only in this one; False where its status does not allow it."""
    meant: Argument = "" if round_ is None else round_
    args = (meant, len(move.sources), *move.sources, move.target, move.stamp, int(now), *_flat(fields or {}))
    return _TRANSITION.call([keys.batch(batch_id)], args, is_one)


def start(
    batch_id: str, now: float, fields: Mapping[str, Argument], shards: Mapping[str, Sequence[int]], round_: int = 0
) -> Call[bool]:
    """End planning; `shards` gives for each provider the number of lines of each of its shards.

    False where this round of the batch is not being validated any more.
    """
    flat = _flat(fields)
    args: list[Argument] = [int(now), round_, round_ * keys.ROUND_SHARDS, len(flat), *flat]
    for provider, lines in shards.items():
        args += [provider, len(lines), *lines]
    lists = [keys.lines(batch_id, provider) for provider in shards]
    return _START.call([keys.batch(batch_id), *lists], args, is_one)


def read(batch_id: str) -> Call[BatchRecord | None]:
    """Read a batch, or None where there is none."""
    return Call(("HGETALL", keys.batch(batch_id)), _record)


def has_copies(batch_id: str) -> Call[bool]:
    """Whether any line of the round that was planned last asks for what an earlier one does."""
    return Call(("HMGET", keys.batch(batch_id), "copies"), lambda answer: int(answer[0] or 0) > 0)


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
            p: ShardCounts(*(number(f"{name}:{p}") for name in ("shards", "next", "open_lines", "first")))
            for p in providers
        },
        cancelled_lines=number("cancelled"),
        expired_lines=number("expired"),
        retries=number("retries"),
        started_ms=number("started_ms"),
        ended_ms=number("ended_ms"),
        kept_expired_lines=number("kept_expired"),
        files={part: fields[name] for part, name in _FILES.items() if fields.get(name)},
        produced_round=int(produced) if (produced := fields.get("produced_round")) else None,
        selection=fields.get("selection", ""),
        removing="removing" in fields,
        late=number("late"),
        cost_nanos=number("cost"),
    )


def _produced(fields: Mapping[str, str], part: OutcomePart, sealed: str) -> str | None:
    """Give the id of a file: of the ended batch, or of its running round as soon as the file would have a line."""
    if Status(fields["status"]).is_terminal:
        return fields.get(_FILES[part]) or None
    if "in_progress_at" not in fields or not int(fields.get(sealed, 0)):
        return None
    return produced_file_id(fields["id"], part, int(fields.get("round", 0)))


def _object(fields: Mapping[str, str]) -> BatchObject:
    times = {f"{name}_at": int(fields[f"{name}_at"]) for name in _TIMES if f"{name}_at" in fields}
    return BatchObject(
        id=fields["id"],
        tenant=fields.get("tenant", DEFAULT_TENANT),
        round=int(fields.get("round", 0)),
        once=fields.get("once"),
        max_cost_nanos=int(max_cost) if (max_cost := fields.get("max_cost")) else None,
        dedupe=fields["dedupe"] == "1" if "dedupe" in fields else None,
        output_expires_after_s=int(life_s) if (life_s := fields.get("output_expires_after_s")) else None,
        endpoint=fields["endpoint"],
        input_file_id=fields["input_file_id"],
        completion_window=fields["completion_window"],
        status=Status(fields["status"]),
        created_at=int(fields["created_at"]),
        expires_at=int(fields["expires_at"]),
        model=fields.get("model") or None,
        errors=problems_from_json(fields["errors"]) if "errors" in fields else (),
        output_file_id=_produced(fields, "output", "sealed_succeeded"),
        error_file_id=_produced(fields, "errors", "sealed_others"),
        request_counts=RequestCounts(
            total=int(fields.get("total", 0)),
            completed=int(fields.get("completed", 0)),
            failed=int(fields.get("failed", 0)),
        ),
        usage=Usage(**{name: int(fields.get(name, 0)) for name in _USAGE}),
        metadata=msgspec.json.decode(fields["metadata"]) if "metadata" in fields else None,
        **times,
    )
