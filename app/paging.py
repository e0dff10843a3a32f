"""The envelope of every list, and the words with which a client asks for a page. Not for what is listed."""

from __future__ import annotations

from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel


class Identified(BaseModel):
    """What can be listed; its id is what a client names to go on after it."""

    id: str


T = TypeVar("T", bound=Identified)
Order = Literal["asc", "desc"]


class ListPage(BaseModel, Generic[T]):
    """One page of a list; `first_id` and `last_id` are null where it is empty."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[T], *, has_more: bool) -> Self:
        """Wrap a page."""
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first_id, last_id=last_id, has_more=has_more)
