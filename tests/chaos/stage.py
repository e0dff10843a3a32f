"""A fleet to be hurt: each worker sends under a name of its own, and it is noted what may be sent again for a fault.

A line that is sent twice is excused only if a process had it in flight when it was killed (or stopped, or cut off, for
longer than its claims hold): that process had sent it, and its outcome was not in Redis at that moment.
"""

from __future__ import annotations

import math
import os
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from batchord.state import batches, shards
from batchord.state.keys import Shard
from tests.acceptance.cli import environment, wait_until
from tests.acceptance.fleet import Fleet, Worker
from tests.chaos.schedule import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batchord import Batch, Client
    from tests.chaos.proxy import Proxies, Proxy
    from tests.upstream import Upstream

PROVIDER = "local"
SHARD_LINES = 100
SMALL_SHARDS = {"BATCHORD_SHARD_LINES": str(SHARD_LINES), "BATCHORD_WINDOW_LINES": "400"}
RECOVERED_S = 240.0
"""How long a batch may take to get over everything: a bound for a machine that does much else, not a promise."""

_SENDER = re.compile(r"^/(w\d+)/")
_TEXT = re.compile(r"<(\d+)>")


class Sent(NamedTuple):
    """A request as the upstream saw it."""

    sender: str
    line: int
    started_s: float


@dataclass
class Excuse:
    """What a process may have sent in vain: all that was not recorded when it was hurt, up to its return."""

    sender: str
    recorded: frozenset[int]
    until_s: float = math.inf

    def covers(self, sent: Sent) -> bool:
        return sent.sender == self.sender and sent.started_s <= self.until_s and sent.line not in self.recorded


class Member(Worker):
    """A worker whose requests can be told from those of others; its ways lead through proxies where there are any."""

    def __init__(self, stage: Stage, name: str, ways: Mapping[str, Proxy]) -> None:
        self.name = name
        self.ways = ways
        providers = stage.path / f"{name}.toml"
        port = ways["provider"].port if ways else stage.upstream.port
        providers.write_text(
            f'[providers.{PROVIDER}]\nbase_url = "http://127.0.0.1:{port}/{name}/v1"\n'
            f"max_concurrency = {stage.concurrency}\nmax_attempts = 30\n",
            encoding="utf-8",
        )
        env = stage.env | ({"BATCHORD_REDIS_URL": f"redis://127.0.0.1:{ways['redis'].port}/0"} if ways else {})
        arguments = ["worker", "--workers", "1", "--providers", str(providers)]
        super().__init__(arguments, stage.path / f"{name}.log", environment(env))

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None


class Stage(Fleet):
    """One Valkey, one storage folder, an upstream, and workers that may be hurt. A context manager."""

    def __init__(
        self,
        path: Path,
        upstream: Upstream,
        *,
        concurrency: int = 40,
        proxies: Proxies | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path, SMALL_SHARDS | dict(env or {}))
        self.upstream = upstream
        self.concurrency = concurrency
        self.members: list[Member] = []
        self.excuses: list[Excuse] = []
        self._proxies = proxies

    @property
    def hurt_answers(self) -> int:
        """How many answers of the provider the proxies may have spoilt so far."""
        return sum(member.ways["provider"].hurt for member in self.members if member.ways)

    @property
    def storage(self) -> Path:
        return self.path / "storage"

    @property
    def running(self) -> list[Member]:
        """The workers that have not been killed or drained."""
        return [member for member in self.members if member.is_running]

    def launch(self, count: int = 1) -> None:
        """Start workers, and wait for none of them."""
        for _ in range(count):
            ways: dict[str, Proxy] = {}
            if self._proxies is not None:
                ways["redis"] = self._proxies.open(str(self._valkey.socket_path))
                ways["provider"] = self._proxies.open("127.0.0.1", self.upstream.port)
            self.members.append(Member(self, f"w{len(self.members)}", ways))
            self.workers.append(self.members[-1])

    def assemble(self, count: int) -> None:
        """Start workers, and wait until they live."""
        self.launch(count)
        self.await_living()

    def await_living(self) -> None:
        """Wait until every worker that runs is on the list of the living."""
        pids = {member.pid for member in self.running}
        wait_until(lambda: pids <= self.living(), f"workers live, see {self.path}")

    def submit(self, lines: int) -> Batch:
        """Begin a batch whose line n, from 0, is named `id-n` and says `<n>`."""
        self.lines = lines
        items = ({"custom_id": f"id-{number}", "message": f"<{number}>"} for number in range(lines))
        self.batch = self.producer.submit(items, model="m")
        return self.batch

    @cached_property
    def producer(self) -> Client:
        """A client with a direct way to Redis."""
        return self.client()

    def await_moment(self, requests: int) -> None:
        """Wait until the upstream has seen so many requests."""
        wait_until(lambda: len(self.upstream.requests) >= requests, f"{requests} requests are sent", RECOVERED_S)

    def say_recovery(self) -> None:
        """Wait for the batch's end, and tell how much later that is than if nothing had happened from now on."""
        begun, left = time.monotonic(), self.lines - len(self.recorded())
        undisturbed_s = left * self.upstream.latency_s / self.concurrency
        self.batch.wait(timeout_s=RECOVERED_S)
        later_s = time.monotonic() - begun - undisturbed_s
        visibility_s = float(self.env["BATCHORD_VISIBILITY_TIMEOUT_S"])
        say(f"{left} lines: {later_s:.1f} s more than undisturbed, or {later_s / visibility_s:.2f} visibility timeouts")

    def recorded(self) -> frozenset[int]:
        """Give the lines that have an outcome in Redis, or had one when their shard was sealed."""
        state, done = self.producer.state, set[int]()
        record = state.run(batches.read(self.batch.id))
        assert record is not None
        for provider, counts in record.shards.items():
            open_now = {number for number, _ in state.run(shards.open_numbers(self.batch.id, provider))}
            for number in range(counts.opened):
                lines = range(number * SHARD_LINES, min((number + 1) * SHARD_LINES, self.lines))
                if number in open_now:
                    found = state.run(shards.outcomes(Shard(self.batch.id, provider, number), range(len(lines))))
                    done |= {line for line, outcome in zip(lines, found, strict=True) if outcome is not None}
                else:
                    done |= set(lines)
        return frozenset(done)

    def excuse(self, member: Member) -> Excuse:
        """Note that what this process has in flight now may be sent again by others."""
        excuse = Excuse(member.name, self.recorded())
        self.excuses.append(excuse)
        return excuse

    def strike_down(self, member: Member) -> None:
        """Kill a worker (SIGKILL)."""
        member.kill()
        self.excuse(member)
        say(f"killed {member.name} after {len(self.upstream.requests)} requests")

    @contextmanager
    def stopped(self, member: Member) -> Iterator[None]:
        """Have a worker stand still (SIGSTOP)."""
        member.process.send_signal(signal.SIGSTOP)
        excuse = self.excuse(member)
        say(f"stopped {member.name} after {len(self.upstream.requests)} requests")
        yield
        excuse.until_s = time.monotonic()
        member.process.send_signal(signal.SIGCONT)

    @contextmanager
    def cut_off(self, member: Member) -> Iterator[None]:
        """Have a worker stand where Redis is not: its connections are open, and nothing passes."""
        member.ways["redis"].mode = "stall"
        excuse = self.excuse(member)
        say(f"cut {member.name} off after {len(self.upstream.requests)} requests")
        yield
        excuse.until_s = time.monotonic()
        member.ways["redis"].mode = "pass"

    @contextmanager
    def storage_away(self) -> Iterator[None]:
        """Have the storage gone, and in its place what no object can be read from or written to.

        A worker that is being started would take that for a mistake in its settings, and end.
        """
        self.await_living()
        away = self.path / "away"
        self.storage.rename(away)
        self.storage.write_text("not a folder", encoding="utf-8")
        say(f"took the storage away after {len(self.upstream.requests)} requests")
        yield
        self.storage.unlink()
        away.rename(self.storage)

    def troubles(self, words: str) -> int:
        """Give how often the workers have written these words into their logs."""
        return sum(member.log.read_text(encoding="utf-8").count(words) for member in self.members)

    def restart_redis(self) -> None:
        """Kill the Valkey (SIGKILL), and start it again on the same folder."""
        os.kill(self._valkey.pid, signal.SIGKILL)
        wait_until(self._valkey.restart_if_dead, "the Valkey is dead and started again")
        say(f"restarted the Valkey after {len(self.upstream.requests)} requests")

    def sent(self) -> list[Sent]:
        """Give all requests of lines, in the order in which they came; not those that a proxy sent on its own."""
        return [
            Sent(sender[1], int(text[1]), seen.started_s)
            for seen in self.upstream.requests
            if (sender := _SENDER.search(seen.path)) and (text := _TEXT.search(seen.body))
        ]

    def sent_again(self) -> list[tuple[Sent, Sent]]:
        """Give each request that was not its line's first, with the one before it."""
        last: dict[int, Sent] = {}
        again = []
        for sent in self.sent():
            if sent.line in last:
                again.append((last[sent.line], sent))
            last[sent.line] = sent
        return again

    def is_excused(self, sent: Sent) -> bool:
        return any(excuse.covers(sent) for excuse in self.excuses)
