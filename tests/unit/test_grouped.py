from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from batchord.grouped import Grouped

if TYPE_CHECKING:
    from collections.abc import Sequence

Groups = list[tuple[str, list[int]]]


class Sender:
    """Doubles each value; waits at the gate, so that a test can let requests gather."""

    def __init__(self) -> None:
        self.sent: list[Groups] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, groups: Groups) -> Sequence[Sequence[int]]:
        self.sent.append(groups)
        self.began.set()
        await self.gate.wait()
        return [[value * 2 for value in values] for _, values in groups]


async def test_requests_of_one_moment_go_in_one_round_trip_and_each_gets_its_own_answer() -> None:
    sender = Sender()
    grouped = Grouped[str, int, int](sender)
    answers = await asyncio.gather(*(grouped.ask("ab"[value % 2], value) for value in range(6)))
    assert answers == [0, 2, 4, 6, 8, 10]
    assert sender.sent == [[("a", [0, 2, 4]), ("b", [1, 3, 5])]]


async def test_while_one_group_is_on_its_way_the_next_one_gathers() -> None:
    sender = Sender()
    sender.gate.clear()
    grouped = Grouped[str, int, int](sender)
    first = grouped.ask("a", 1)
    await sender.began.wait()
    rest = [grouped.ask("a", value) for value in (2, 3)]
    await asyncio.sleep(0)
    sender.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6]
    assert sender.sent == [[("a", [1])], [("a", [2, 3])]]


async def test_a_group_is_no_larger_than_the_most() -> None:
    sender = Sender()
    grouped = Grouped[str, int, int](sender, most=4)
    await asyncio.gather(*(grouped.ask("a", value) for value in range(10)))
    assert [len(groups[0][1]) for groups in sender.sent] == [4, 4, 2]


async def test_whoever_asked_gets_the_error_and_the_next_group_goes_on() -> None:
    failing = True

    async def send(groups: Groups) -> Sequence[Sequence[int]]:
        if failing:
            raise OSError("down")
        return [values for _, values in groups]

    grouped = Grouped[str, int, int](send)
    with pytest.raises(OSError, match="down"):
        await grouped.ask("a", 1)
    failing = False
    assert await grouped.ask("a", 1) == 1


async def test_one_who_stopped_waiting_does_not_disturb_the_others() -> None:
    sender = Sender()
    sender.gate.clear()
    grouped = Grouped[str, int, int](sender)
    gone, stays = (grouped.ask("a", value) for value in (1, 2))
    await sender.began.wait()
    gone.cancel()
    sender.gate.set()
    assert await stays == 4


async def test_what_comes_while_a_group_gathers_goes_with_it() -> None:
    sender = Sender()
    grouped = Grouped[str, int, int](sender, gather_s=0.05)
    first = grouped.ask("a", 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = grouped.ask("a", 2)
    assert [await first, await second] == [2, 4]
    assert sender.sent == [[("a", [1, 2])]]


async def test_flushing_waits_for_what_nobody_awaits() -> None:
    sender = Sender()
    grouped = Grouped[str, int, int](sender)
    await grouped.flush()
    unawaited = grouped.ask("a", 1)
    await grouped.flush()
    assert (sender.sent, unawaited.result()) == ([[("a", [1])]], 2)
