"""The server as its operator runs it: `batchord serve` in a process of its own, on a free port of this machine."""

from __future__ import annotations

import re
import signal
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Self

import msgspec
from openai import AsyncOpenAI, OpenAI

from tests.acceptance.cli import PATIENCE_S, Running, wait_until
from tests.acceptance.fleet import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SIMULATED = """\
[providers.simulated]
kind = "simulated"
models = ["sim-1", "*"]
latency_s = 0.02
"""


class Server:
    """A server in its own folder, up when it is entered, and gone with all its processes at the end.

    Its provider is a simulated one of small latency, or the OpenAI-compatible server at `upstream_url`.
    """

    def __init__(
        self, folder: Path, *more: str, keys: str = "", upstream_url: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._key = keys.rpartition(":")[2] or "unused"
        providers = folder / "providers.toml"
        providers.write_text(_upstream(upstream_url) if upstream_url else SIMULATED, encoding="utf-8")
        self.arguments = [
            "serve",
            "--port",
            "0",
            "--providers",
            str(providers),
            "--data-dir",
            str(folder / "data"),
            *more,
        ]
        self._clients: list[OpenAI] = []
        self._env = {**QUICK, "BATCHORD_API_KEYS": keys, **(env or {})}

    def __enter__(self) -> Self:
        self.running = Running(self.arguments, self.folder, self._env)
        try:
            wait_until(lambda: self.running.out or self.running.process.poll() is not None, "the server says it is up")
            said = re.search(r'base_url="(http://\S+)/v1"', self.running.out)
            assert said, self.running.out + self.running.err
        except BaseException:
            self.running.__exit__()
            raise
        self.url = said[1]
        return self

    def __exit__(self, *_: object) -> None:
        """Ask it to end, so that its workers do, and end what is left."""
        for client in self._clients:
            client.close()
        if self.running.process.poll() is None:
            self.running.signal(signal.SIGTERM)
            with self.running:
                self.running.end()

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def connection(self) -> HTTPConnection:
        """Give a bare connection, for what no client of the SDK sends."""
        return HTTPConnection(self.url.removeprefix("http://"), timeout=PATIENCE_S)

    def client(self, **options: Any) -> OpenAI:
        """Give the stock client, as its user makes it; it is closed when the server ends."""
        self._clients.append(OpenAI(**{"base_url": self.base_url, "api_key": self._key, **options}))
        return self._clients[-1]

    def async_client(self, **options: Any) -> AsyncOpenAI:
        """Give the stock client for programs with an event loop, which close it."""
        return AsyncOpenAI(**{"base_url": self.base_url, "api_key": self._key, **options})


def _upstream(base_url: str) -> str:
    return f'[providers.local]\nbase_url = "{base_url}"\nmodels = ["*"]\nmax_concurrency = 20\n'


def jsonl(lines: Iterable[Any]) -> bytes:
    """Give the bytes of an input file."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
