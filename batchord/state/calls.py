"""One Redis command or script as a value: what to send, and how to read the answer. Who sends it is `connection`.

Every call is safe to repeat, for a client whose answer was lost sends it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T_co = TypeVar("T_co", covariant=True)
Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A command with its arguments; `read` turns Redis' answer into what the caller wants."""

    command: tuple[Argument, ...]
    read: Callable[[Any], T_co]


class Script:
    """A Lua script of `batchord/state/lua`, sent by its digest; `connection` loads it where the server has it not.

    `preludes` are what it begins with, since a script can load nothing.
    """

    loaded: dict[str, Script] = {}  # noqa: RUF012 (every script of the process, so that a connection can load them all)

    def __init__(self, name: str, *preludes: str) -> None:
        folder = files("batchord.state") / "lua"
        self.text = "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*preludes, name))
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        Script.loaded[name] = self

    def call(self, keys: Sequence[str], args: Sequence[Argument], read: Callable[[Any], T_co]) -> Call[T_co]:
        """Give the call of this script."""
        return Call(("EVALSHA", self.sha, len(keys), *keys, *args), read)


def nothing(_answer: object) -> None:
    """Read an answer that says nothing of use."""
    return


def is_one(answer: object) -> bool:
    """Read an answer of 1 as True, anything else as False."""
    return answer == 1


def text(answer: bytes | None) -> str | None:
    """Read an answer that is a string, or none."""
    return None if answer is None else answer.decode()


def pairs(answer: Any) -> list[tuple[bytes, bytes]]:
    """Read an answer of pairs: a map or nested pairs in RESP3, a flat list in RESP2."""
    if isinstance(answer, dict):
        return list(answer.items())
    if answer and isinstance(answer[0], list | tuple):
        return [(first, second) for first, second in answer]
    return list(zip(answer[::2], answer[1::2], strict=True))


def mapping(answer: Any) -> dict[str, str]:
    """Read a hash."""
    return {name.decode(): value.decode() for name, value in pairs(answer)}


def scored(answer: Any) -> list[tuple[str, float]]:
    """Read the members of a sorted set with their scores."""
    return [(member.decode(), float(score)) for member, score in pairs(answer)]
