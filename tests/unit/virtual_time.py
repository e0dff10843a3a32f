"""Time that passes only when nothing else is to be done: an event loop, and a Redis whose scripts are told it."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from batchord.state.calls import Script
from tests.unit.fake_state import FakeState

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from batchord.state.calls import Call

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait for its timers: its clock goes to the next one at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def advance(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self._virtual.now += seconds


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


class ClockedState(FakeState):
    """A fake Redis whose scripts take `now` for the time."""

    now = 1_700_000_000.0

    def run(self, call: Call[T]) -> T:
        command, sha, *arguments = call.command
        if command != "EVALSHA":
            return super().run(call)
        text = next(script.text for script in Script.loaded.values() if script.sha == sha)
        head, _, body = text.partition("local now = time[1] + time[2] / 1000000")
        assert not head or body
        return call.read(self._redis.execute_command("EVAL", f"local now = {self.now!r}\n{body}", *arguments))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
