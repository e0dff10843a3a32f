"""A server with limits in a process of its own. What is measured against it is what it saw."""

from __future__ import annotations

import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tests.benchmarks.runs import SERVER_TIMEOUT_S, first_line
from tests.benchmarks.sampler import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.limited_upstream import Terms


class Sent(msgspec.Struct):
    """A request as the server saw it; monotonic times, `ended_s` is None while it is being answered."""

    started_s: float
    ended_s: float | None
    status: int


class _Shown(msgspec.Struct):
    requests: list[Sent]


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    base_url: str

    def sent(self) -> list[Sent]:
        """Ask for every request so far."""
        url = self.base_url.removesuffix("/v1") + "/_requests"
        with urllib.request.urlopen(url, timeout=SERVER_TIMEOUT_S) as answer:  # noqa: S310 (our own server)
            return msgspec.json.decode(answer.read(), type=_Shown).requests


@contextmanager
def serving(terms: Terms, folder: Path) -> Iterator[Server]:
    """Run a server that keeps its logs in a new folder."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.limited_upstream", "--terms", msgspec.json.encode(terms).decode()]
    with running(command, folder):
        yield Server(first_line(folder / "stdout"))


def provider(name: str, base_url: str, **fields: Any) -> str:
    """Give a provider's part of the providers file; of the models of its own name, if no others are said."""
    table = {"kind": "openai", "base_url": base_url, "models": [f"{name}*"], **fields}
    rows = [f"{field} = {msgspec.json.encode(value).decode()}" for field, value in table.items()]
    return "\n".join([f"[providers.{name}]", *rows, ""])


def took_s(sent: list[Sent]) -> float:
    """Give the time from the first request to the last one."""
    return max(each.started_s for each in sent) - min(each.started_s for each in sent)


def refused_share(sent: list[Sent]) -> float:
    """Give the share of requests that were answered with an error."""
    return sum(each.status >= 400 for each in sent) / len(sent)


def usages(output: Path) -> list[dict[str, Any]]:
    """Give what the server reported with each line of an output."""
    with output.open("rb") as lines:
        return [msgspec.json.decode(line)["response"]["body"]["usage"] for line in lines]
