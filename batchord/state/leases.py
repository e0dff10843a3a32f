"""Who is alive and who may do what alone: leases of steps, and the list of living workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchord.state import keys
from batchord.state.calls import Call, Script, is_one, nothing

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEASE, _LET_GO = Script("lease"), Script("let_go")
_BEAT, _ALIVE = Script("beat", "_clock"), Script("alive", "_clock")


def take(lease: str, holder: str, life_s: float) -> Call[bool]:
    """Take or prolong a lease; False where another holds it."""
    return _LEASE.call([lease], (holder, int(life_s * 1000)), is_one)


def let_go(lease: str, holder: str) -> Call[bool]:
    """End a lease early; False where it was not the holder's."""
    return _LET_GO.call([lease], (holder,), is_one)


def beat(worker: str, life_s: float) -> Call[float]:
    """Say that a worker lives, for so long unless it says so again; give the time of Redis."""
    return _BEAT.call([keys.WORKERS], (worker, life_s), float)


def leave(worker: str) -> Call[None]:
    """Take a worker that ends off the list."""
    return Call(("ZREM", keys.WORKERS, worker), nothing)


def alive() -> Call[list[str]]:
    """Give the living workers."""
    return _ALIVE.call([keys.WORKERS], (), lambda answer: [worker.decode() for worker in answer])


def end_all(batch_ids: Iterable[str]) -> Call[None]:
    """End every lease of these batches and forget every worker: only for a fleet that is known to be dead."""
    steps = [keys.step_lease(batch_id, step) for batch_id in batch_ids for step in ("plan", "finalize")]
    return Call(("DEL", keys.SWEEP_LEASE, keys.SWEEPING_LEASE, keys.WORKERS, keys.SHARES, *steps), nothing)
