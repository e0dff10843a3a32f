"""The open shards: opening, claiming lines, recording outcomes once, sealing. One typed function a script."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from batchord.contract import NO_USAGE, Usage
from batchord.histogram import bucket_of
from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, is_one, nothing, scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.lifecycle import Outcome
    from batchord.state.keys import Shard

_OPEN, _BEGIN, _RECORD, _RELEASE = Script("open_shard"), Script("begin"), Script("record"), Script("release")
_RENEW, _MISSING, _SEAL = Script("renew"), Script("missing"), Script("seal")
_UNANSWERED: Final = ("", "", "")
_MODEL_CHARS: Final = 200
_ANALYTICS_FIELDS: Final = 20_000
"""A batch of ever new models must not fill Redis: those past some hundred are counted together."""


class Verdict(StrEnum):
    """What a worker is to do with a line that it was given."""

    SEND = "send"
    RECORDED = "recorded"
    CLAIMED = "claimed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Answered:
    """How the request went that was answered: its cost in nano-dollars, None where that is unknown, and its times."""

    cost_nanos: int | None
    latency_ms: float
    ttfb_ms: float

    def words(self) -> tuple[Argument, ...]:
        """Give the script's words for this answer."""
        cost = "" if self.cost_nanos is None else self.cost_nanos
        return (cost, bucket_of(self.latency_ms), bucket_of(self.ttfb_ms))


@dataclass(frozen=True, slots=True)
class LineRecord:
    """The outcome of the line at `index` of its shard, as it is kept until the seal: `content` is the part's line.

    `model` is the one that the line asked for; `answered` is None where no answer came.
    """

    index: int
    outcome: Outcome
    content: bytes
    retries: int = 0
    usage: Usage = NO_USAGE
    model: str = ""
    answered: Answered | None = None

    @property
    def is_large(self) -> bool:
        """Whether the content is in storage, and only its path here."""
        return self.content.startswith(b"@")

    def words(self) -> tuple[Argument, ...]:
        """Give the script's words for this line."""
        u = self.usage
        tokens = (u.input_tokens, u.cached_tokens, u.output_tokens, u.reasoning_tokens, u.total_tokens)
        answered = _UNANSWERED if self.answered is None else self.answered.words()
        return (self.index, self.outcome.encode() + self.content, self.retries, *tokens, *answered)


@dataclass(frozen=True, slots=True)
class OpenShard:
    """An open shard's progress."""

    lines: int
    recorded: int


def open_next(batch_id: str, provider: str, now: float, window_lines: int) -> Call[tuple[int, int] | None]:
    """Open the provider's next shard if the window has room: its number and its lines, or None."""
    names = [keys.batch(batch_id), keys.lines(batch_id, provider), keys.open_shards(batch_id, provider)]
    args = (provider, now, window_lines, keys.shard_prefix(batch_id, provider))
    return _OPEN.call(names, args, lambda answer: (answer[0], answer[1]) if answer else None)


def begin(shard: Shard, worker: str, now: float, until: float, indices: Sequence[int]) -> Call[list[Verdict]]:
    """Ask for each line whether this worker may send it, and claim those that it may until `until`."""
    names = [keys.batch(shard.batch_id), *_shard_keys(shard)]
    return _BEGIN.call(names, (worker, now, until, *indices), lambda answer: [Verdict(v.decode()) for v in answer])


def record(shard: Shard, now: float, records: Sequence[LineRecord]) -> Call[int]:
    """Record outcomes, the first of a line wins: how many were recorded now."""
    names = [
        keys.batch(shard.batch_id),
        keys.shard(shard),
        keys.outcomes(shard),
        keys.claims(shard),
        keys.open_shards(shard.batch_id, shard.provider),
        keys.analytics(shard.batch_id),
    ]
    models: dict[str, int] = {}
    words: list[Argument] = []
    for line in records:
        words += line.words()
        words.append(models.setdefault(line.model[:_MODEL_CHARS], len(models)))
    return _RECORD.call(
        names, (shard.number, now, shard.provider, _ANALYTICS_FIELDS, len(models), *models, *words), int
    )


def release(shard: Shard, worker: str, indices: Sequence[int]) -> Call[int]:
    """Give up this worker's claims on lines that go back unsent."""
    return _RELEASE.call([keys.claims(shard)], (worker, *indices), int)


def renew(shard: Shard, worker: str, until: float) -> Call[bool]:
    """Prolong this worker's claims; False where the shard is sealed."""
    return _RENEW.call([keys.shard(shard), keys.owners(shard)], (worker, until), is_one)


def disown(shard: Shard) -> Call[None]:
    """End every worker's claims, and the chord: only for a fleet that is known to be dead."""
    return Call(("DEL", keys.claims(shard), keys.owners(shard), *keys.chord(shard)), nothing)


def missing(shard: Shard, now: float) -> Call[list[int]]:
    """Give the indices of the lines that have no outcome and that no living worker sends."""
    return _MISSING.call(_shard_keys(shard), (now,), list)


def progress(shard: Shard) -> Call[OpenShard | None]:
    """Read how far an open shard is; None where it is not open."""
    return Call(("HMGET", keys.shard(shard), "lines", "recorded"), _progress)


def outcomes(shard: Shard, indices: Sequence[int]) -> Call[list[bytes | None]]:
    """Read the records of some lines, each beginning with its outcome's letter; None where there is none."""
    return Call(("HMGET", keys.outcomes(shard), *indices), list)


def seal(shard: Shard, succeeded: int) -> Call[bool]:
    """End a shard whose parts are written, with so many successes; False where it was ended, or lacks an outcome."""
    names = [keys.batch(shard.batch_id), *_shard_keys(shard), keys.open_shards(shard.batch_id, shard.provider)]
    return _SEAL.call([*names, *keys.chord(shard)], (shard.provider, shard.number, succeeded), is_one)


def open_numbers(batch_id: str, provider: str) -> Call[list[tuple[int, float]]]:
    """Give the open shards' numbers, each with the time of its last progress, the stillest first."""
    command = ("ZRANGE", keys.open_shards(batch_id, provider), 0, -1, "WITHSCORES")
    return Call(command, lambda answer: [(int(number), at) for number, at in scored(answer)])


def touch(shard: Shard, now: float) -> Call[None]:
    """Note that something was done for an open shard, so that the sweep waits before it acts again."""
    return Call(("ZADD", keys.open_shards(shard.batch_id, shard.provider), "XX", now, shard.number), nothing)


def _shard_keys(shard: Shard) -> list[str]:
    return [keys.shard(shard), keys.outcomes(shard), keys.claims(shard), keys.owners(shard)]


def _progress(answer: Sequence[bytes | None]) -> OpenShard | None:
    lines, recorded = answer
    return None if lines is None or recorded is None else OpenShard(int(lines), int(recorded))
