"""What belongs to a tenant, in the order of its creation: notes, and pages that go on after an id. Not the things."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batchord.state.calls import Call, Script, nothing

if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = Script("page")


def note(key: str, member: str, at: float) -> Call[None]:
    """Put something on a listing, as created then (with fractions of a second); one that is on it keeps its place."""
    return Call(("ZADD", key, "NX", at, member), nothing)


def drop(key: str, members: Sequence[str]) -> Call[None]:
    """Take some off a listing; there must be at least one."""
    return Call(("ZREM", key, *members), nothing)


def page(  # noqa: PLR0913 (what a client may say of a page)
    key: str,
    *,
    after: str | None,
    most: int,
    newest_first: bool = True,
    since: float | None = None,
    until: float | None = None,
) -> Call[list[str] | None]:
    """Give at most so many of a listing that follow `after`, created from `since` to `until`, both included.

    None where `after` is not on the listing. Of those created at once the order is that of their ids, so that pages
    neither repeat nor miss any.
    """
    lowest = -math.inf if since is None else since
    highest = math.inf if until is None else until
    order = "newest" if newest_first else "oldest"
    return _PAGE.call([key], (after or "", most, order, lowest, highest), _members)


def _members(answer: Any) -> list[str] | None:
    return None if answer is None else [member.decode() for member in answer]
