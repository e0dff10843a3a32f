"""The open shards: opening, claiming lines, recording outcomes once, sealing. One typed function a script.

Every time is that of Redis' clock, in seconds: the scripts ask for it, as the clocks of the workers differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from batchord.contract import NO_USAGE, Usage
from batchord.histogram import bucket_of
from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, is_one, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchord.lifecycle import Outcome
    from batchord.state.keys import Shard

_BEGIN, _RECORD, _MISSING = (Script(name, "_clock", "_claim") for name in ("begin", "record", "missing"))
_LOOK = Script("look", "_clock", "_claim")
_OPEN, _RENEW, _IDLE, _TOUCH = (Script(name, "_clock") for name in ("open_shard", "renew", "idle", "touch"))
_RELEASE, _SEAL = Script("release"), Script("seal")
_UNANSWERED: Final = ("", "", "")
_COPIED: Final = ("", "copy", "")
_MODEL_CHARS: Final = 200
_SUSPECT_STRIKES: Final = 2
_POISONED_STRIKES: Final = 5
_ANALYTICS_FIELDS: Final = 20_000
"""A batch of ever new models must not fill Redis: those past some hundred are counted together."""


class Verdict(StrEnum):
    """What a worker is to do with a line that it was given."""

    SEND = "send"
    SUSPECT = "suspect"
    POISONED = "poisoned"
    RECORDED = "recorded"
    CLAIMED = "claimed"
    UNSURE = "unsure"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    OVER_BUDGET = "over_budget"


class Contact(NamedTuple):
    """Since when and until when a worker was in touch with Redis; to be in touch is never to be silent for long.

    Only a worker that has been in touch for as long as a claim holds may take another for dead.
    """

    since: float = 0
    until: float = 0

    def prolonged(self, now: float, claim_s: float) -> Contact:
        """Give what it is when Redis has answered at `now`: a new one after a silence of a third of a claim."""
        is_kept = 0 <= now - self.until <= claim_s / 3
        return Contact(self.since if is_kept else now, now)


class Missing(NamedTuple):
    """The lines of a shard that nobody sends and that have no outcome; whether those of its batch may be sent still."""

    indices: list[int]
    may_be_sent: bool


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

    `model` is the one that the line asked for, `provider` the one that was asked, if it is not the shard's. `answered`
    is None where no answer came, and of a copy, which took that of another line.
    """

    index: int
    outcome: Outcome
    content: bytes
    retries: int = 0
    usage: Usage = NO_USAGE
    model: str = ""
    answered: Answered | None = None
    is_copy: bool = False
    provider: str = ""

    @property
    def is_large(self) -> bool:
        """Whether the content is in storage, and only its path here."""
        return self.content.startswith(b"@")

    def words(self) -> tuple[Argument, ...]:
        """Give the script's words for this line."""
        u = self.usage
        tokens = (u.input_tokens, u.cached_tokens, u.output_tokens, u.reasoning_tokens, u.total_tokens)
        answered = _COPIED if self.is_copy else self.answered.words() if self.answered else _UNANSWERED
        return (self.index, self.outcome.encode() + self.content, self.retries, *tokens, *answered)


@dataclass(frozen=True, slots=True)
class OpenShard:
    """An open shard's progress."""

    lines: int
    recorded: int

    @property
    def is_complete(self) -> bool:
        """Whether every line has its outcome."""
        return self.recorded == self.lines


def open_next(batch_id: str, provider: str, window_lines: int, entry: str = "") -> Call[tuple[int, int] | None]:
    """Open the batch's next shard if the provider's window has room: its number and its lines, or None.

    `entry` is the batch's on the list of those that wait there, which it leaves when it has no shard to open any more.
    """
    names = [keys.batch(batch_id), keys.lines(batch_id, provider), keys.open_shards(batch_id, provider)]
    names += [keys.waiting(provider), keys.tenant_lines(provider)]
    args = (provider, window_lines, keys.shard_prefix(batch_id, provider), entry)
    return _OPEN.call(names, args, lambda answer: (answer[0], answer[1]) if answer else None)


def begin(shard: Shard, worker: str, claim_s: float, contact: Contact, indices: Sequence[int]) -> Call[list[Verdict]]:
    """Ask for each line whether this worker may send it, and claim those that it may for `claim_s` from now."""
    args: list[Argument] = [worker, claim_s, *contact, _SUSPECT_STRIKES, _POISONED_STRIKES, *indices]
    return _BEGIN.call(_shard_keys(shard), args, _verdicts)


def record(shard: Shard, worker: str, claim_s: float, records: Sequence[LineRecord]) -> Call[int]:
    """Record outcomes, the first of a line wins: how many were recorded now.

    An answer that comes too late changes nothing but the batch's count of late ones.
    """
    *names, _strikes = _shard_keys(shard)
    names += [keys.open_shards(shard.batch_id, shard.provider), keys.analytics(shard.batch_id)]
    models: dict[str, int] = {}
    words: list[Argument] = []
    for line in records:
        words += line.words()
        model = f"{line.provider or shard.provider}|{line.model[:_MODEL_CHARS]}"
        words.append(models.setdefault(model, len(models)))
    head: list[Argument] = [worker, claim_s, shard.number, shard.provider, _ANALYTICS_FIELDS, len(models)]
    return _RECORD.call(names, [*head, *models, *words], int)


def release(shard: Shard, worker: str, indices: Sequence[int]) -> Call[int]:
    """Give up this worker's claims on lines that go back unsent."""
    return _RELEASE.call([keys.claims(shard)], (worker, *indices), int)


def renew(shard: Shard, worker: str) -> Call[bool]:
    """Prolong this worker's claims; False where the shard is sealed."""
    return _RENEW.call([keys.shard(shard), keys.owners(shard)], (worker,), is_one)


def disown(shard: Shard) -> Call[None]:
    """End every worker's claims, and the chord: only for a fleet that is known to be dead."""
    return Call(("DEL", keys.claims(shard), keys.owners(shard), *keys.chord(shard)), nothing)


def missing(shard: Shard, claim_s: float, contact: Contact) -> Call[Missing]:
    """Give the lines that have no outcome and that no living worker sends, lowest first."""
    *names, _strikes = _shard_keys(shard)
    return _MISSING.call(names, (claim_s, *contact), lambda answer: Missing(answer[1:], is_one(answer[0])))


def progress(shard: Shard) -> Call[OpenShard | None]:
    """Read how far an open shard is; None where it is not open."""
    return Call(("HMGET", keys.shard(shard), "lines", "recorded"), _progress)


def outcomes(shard: Shard, indices: Sequence[int]) -> Call[list[bytes | None]]:
    """Read the records of some lines, each beginning with its outcome's letter; None where there is none."""
    return Call(("HMGET", keys.outcomes(shard), *indices), list)


def look(shard: Shard, claim_s: float, indices: Sequence[int]) -> Call[list[bytes]]:
    """Give the records of some lines, or in their place `claimed`, `unclaimed`, or `sealed` where the shard is."""
    names = [keys.shard(shard), keys.outcomes(shard), keys.claims(shard), keys.owners(shard)]
    return _LOOK.call(names, (claim_s, *indices), list)


def seal(shard: Shard, succeeded: int) -> Call[bool]:
    """End a shard whose parts are written, with so many successes; False where it was ended, or lacks an outcome."""
    names = [*_shard_keys(shard), keys.open_shards(shard.batch_id, shard.provider), *keys.chord(shard)]
    names.append(keys.tenant_lines(shard.provider))
    return _SEAL.call(names, (shard.provider, shard.number, succeeded), is_one)


def open_numbers(batch_id: str, provider: str) -> Call[list[tuple[int, float]]]:
    """Give the open shards' numbers, each with the seconds since its last progress, the stillest first."""
    return _IDLE.call([keys.open_shards(batch_id, provider)], (), _idle)


def touch(shard: Shard) -> Call[None]:
    """Note that something was done for an open shard, so that the sweep waits before it acts again."""
    return _TOUCH.call([keys.open_shards(shard.batch_id, shard.provider)], (shard.number,), nothing)


def hurry(shard: Shard) -> Call[None]:
    """Have the next sweep look at an open shard, as at one that has stood still for ever."""
    return Call(("ZADD", keys.open_shards(shard.batch_id, shard.provider), "XX", 0, shard.number), nothing)


def _shard_keys(shard: Shard) -> list[str]:
    own = (keys.shard(shard), keys.outcomes(shard), keys.claims(shard), keys.owners(shard), keys.strikes(shard))
    return [keys.batch(shard.batch_id), *own]


def _verdicts(answer: Sequence[bytes]) -> list[Verdict]:
    return [Verdict(verdict.decode()) for verdict in answer]


def _idle(answer: Sequence[Any]) -> list[tuple[int, float]]:
    return [(number, float(idle_s)) for number, idle_s in answer]


def _progress(answer: Sequence[bytes | None]) -> OpenShard | None:
    lines, recorded = answer
    return None if lines is None or recorded is None else OpenShard(int(lines), int(recorded))
