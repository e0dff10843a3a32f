"""Pages of what a tenant has, and the walk along a listing. Not for how a page looks on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from batchord.errors import UnavailableError
from batchord.state import listings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from batchord.state.connection import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a listing, in its order, and whether there are more."""

    items: list[T]
    has_more: bool


async def chunks(  # noqa: PLR0913 (what a client may say of a walk)
    state: State,
    key: str,
    *,
    after: str | None,
    most: int,
    newest_first: bool = True,
    since: float | None = None,
    until: float | None = None,
) -> AsyncIterator[list[str] | None]:
    """Give the ids that follow `after` in chunks of at most so many, to the end; None where `after` is not listed.

    Of those created from `since` to `until`, both included.

    Raises:
        UnavailableError: the walk lost its place, since the id at which it stood was deleted.
    """
    cursor = after
    page = partial(listings.page, key, most=most, newest_first=newest_first, since=since, until=until)
    while ids := await state.run(page(after=cursor)):
        yield ids
        cursor = ids[-1]
    if ids is None and cursor != after:
        raise UnavailableError("The list changed while it was read; ask again.")
    if ids is None:
        yield None
