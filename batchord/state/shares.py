"""Which part of each limit a worker may use. Not for the permits themselves, which are the worker's own.

A lane is what has a limit of its own: a provider, by its name, or some of its models, as `provider/glob`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from batchord.state import keys
from batchord.state.calls import Argument, Call, Script, nothing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHARE = Script("share", "_clock")


class Ask(NamedTuple):
    """A worker's word on a lane, with the fleet's limit, or 0 where it wants no part.

    `held` are the permits that it holds, or may take before it hears the answer.
    """

    lane: str
    held: int
    limit: int


class Part(NamedTuple):
    """How many permits a worker has from now on, and how many are due to it once the others have let go of theirs."""

    now: int
    due: int


def take(worker: str, asks: Sequence[Ask], life_s: float, workers: int) -> Call[list[Part]]:
    """Take the parts of a worker, in the order of `asks`; they are its own for so long, unless it asks again.

    `workers` says how many there will be at least, for whom an equal part is left free.
    """
    args: list[Argument] = [worker, math.ceil(life_s)]
    for ask in asks:
        args += [*ask, workers]
    return _SHARE.call([keys.SHARES], args, _parts)


def leave(worker: str, lanes: Iterable[str]) -> Call[None]:
    """Give back every part of a worker that ends."""
    args: list[Argument] = [worker, 0]
    for lane in lanes:
        args += [*Ask(lane, 0, 0), 1]
    return _SHARE.call([keys.SHARES], args, nothing)


def holders() -> Call[list[str]]:
    """Give every part, as `"<lane> <worker>"`."""
    return Call(("HKEYS", keys.SHARES), lambda answer: [holder.decode() for holder in answer])


def drop(held: Sequence[str]) -> Call[None]:
    """Give back parts whose workers are known to be dead; there must be at least one."""
    return Call(("HDEL", keys.SHARES, *held), nothing)


def _parts(answer: Any) -> list[Part]:
    return [Part(*pair) for pair in zip(answer[::2], answer[1::2], strict=True)]
