"""How each provider is, for the whole fleet: paused, its circuit open, failing since when. Not what follows from it.

Every time is that of Redis' clock, in seconds. What happened is told with how long ago the request was sent, and each
change is published on one channel as the condition that it led to.
"""

from __future__ import annotations

import random
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

_FAILED, _ANSWERED, _PAUSED, _PROBE, _LET_GO, _READ = (
    Script(name, "_clock", "_condition")
    for name in (
        "condition_failed",
        "condition_answered",
        "condition_paused",
        "condition_probe",
        "condition_let_go",
        "conditions",
    )
)
_RANDOM: Final = random.Random()  # noqa: S311 (it spreads pauses)
_REASON_CHARS: Final = 200


class Health(StrEnum):
    """How a provider is: `silent` is one that has never answered and fails, whatever its circuit is."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    PAUSED = "paused"
    SILENT = "silent"


class ProviderCondition(msgspec.Struct, frozen=True):
    """What the fleet knows of a provider, as of `now`; times are 0 where there is none."""

    provider: str
    now: float = 0
    answered_at: float = 0
    failing_since: float = 0
    failed_at: float = 0
    failures: int = 0
    opens: int = 0
    open_until: float = 0
    changed_at: float = 0
    probe: str = ""
    probe_until: float = 0
    pause_until: float = 0
    pauses: int = 0
    reason: str = ""

    @property
    def health(self) -> Health:
        """What matters most of it to who looks on."""
        if self.failing_since and not self.answered_at:
            return Health.SILENT
        if self.pause_until > self.now:
            return Health.PAUSED
        if self.open_until:
            return Health.OPEN if self.open_until > self.now else Health.HALF_OPEN
        return Health.CLOSED

    @property
    def wait_s(self) -> float:
        """For how long nothing is sent: until the end of the pause, or the next probe."""
        return max(0.0, max(self.pause_until, self.open_until) - self.now)

    @property
    def failing_s(self) -> float:
        """For how long it has failed without a good answer; 0 if it does not."""
        return self.now - self.failing_since if self.failing_since else 0.0


_OF_TROUBLE: Final = tuple(
    field
    for field in ProviderCondition.__struct_fields__
    if field not in {"provider", "now", "pause_until", "pauses", "reason"}
)
_DECODER: Final = msgspec.json.Decoder(ProviderCondition, strict=False)  # Redis keeps numbers as texts


def decode(message: bytes) -> ProviderCondition:
    """Read a condition, as the scripts give and publish it."""
    return _DECODER.decode(message)


def failed(  # noqa: PLR0913 (what happened, and the rule by which it is judged)
    provider: str,
    worker: str,
    sent_ago_s: float,
    *,
    count: int,
    reason: str,
    give_up_after_s: float | None,
    is_probe: bool,
) -> Call[ProviderCondition]:
    """Tell of failures in a row; `count` of them speak against the server: no connection, or a status from 500."""
    args = (sent_ago_s, count, int(is_probe), give_up_after_s or 0, _RANDOM.random(), reason[:_REASON_CHARS])
    return _call(_FAILED, provider, worker, *args)


def answered(provider: str, worker: str, sent_ago_s: float, *, is_probe: bool) -> Call[ProviderCondition]:
    """Tell of a good answer."""
    return _call(_ANSWERED, provider, worker, sent_ago_s, int(is_probe))


def paused(
    provider: str, sent_ago_s: float, wait_s: float | None, *, reason: str, is_well: bool
) -> Call[ProviderCondition]:
    """Tell that a provider wants to be left alone, for so long or by backoff; `is_well` if it did not fail else."""
    return _call(_PAUSED, provider, sent_ago_s, wait_s or 0, _RANDOM.random(), reason[:_REASON_CHARS], int(is_well))


def take_probe(provider: str, worker: str, life_s: float) -> Call[ProviderCondition]:
    """Take the right to send the probe, or keep it for so long; who has it is `probe` of what comes back."""
    return _call(_PROBE, provider, worker, life_s)


def let_go(provider: str, worker: str) -> Call[ProviderCondition]:
    """Give the probe back, if this worker has it."""
    return _call(_LET_GO, provider, worker)


def read(providers: Sequence[str]) -> Call[list[ProviderCondition]]:
    """Give the conditions of some providers, in their order."""
    names = [keys.condition(name) for name in providers]
    return _READ.call(names, (), lambda answer: [decode(message) for message in answer])


def begin_anew(provider: str) -> Call[None]:
    """Forget the trouble that a fleet had which is known to be dead; a pause stays, as the provider asked for it."""
    return Call(("HDEL", keys.condition(provider), *_OF_TROUBLE), nothing)


def _call(script: Script, provider: str, *args: Argument) -> Call[ProviderCondition]:
    return script.call([keys.condition(provider)], (keys.CONDITIONS_CHANNEL, *args), decode)
