from __future__ import annotations

import asyncio

import pytest

from workers.draining import Draining
from workers.permits import Permits, slots


class Crowd:
    """Holders of permits, each of which leaves when it is told to."""

    def __init__(self, permits: Permits, size: int) -> None:
        self.inside = 0
        self.peak = 0
        self._leave = asyncio.Semaphore(0)
        self.tasks = [asyncio.create_task(self._visit(permits)) for _ in range(size)]

    async def _visit(self, permits: Permits) -> None:
        async with permits:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            await self._leave.acquire()
            self.inside -= 1

    async def release(self, count: int) -> None:
        for _ in range(count):
            self._leave.release()
        await settle()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_hold_a_permit() -> None:
    crowd = Crowd(Permits(3), 10)
    await settle()
    assert crowd.inside == 3
    await crowd.release(10)
    await asyncio.gather(*crowd.tasks)
    assert crowd.peak == 3


async def test_a_raised_limit_lets_those_who_wait_in_at_once() -> None:
    permits = Permits(1)
    crowd = Crowd(permits, 5)
    await settle()
    permits.resize(4)
    await settle()
    assert crowd.inside == 4
    await crowd.release(5)
    await asyncio.gather(*crowd.tasks)


async def test_a_lowered_limit_lets_nobody_in_until_enough_have_left() -> None:
    permits = Permits(4)
    crowd = Crowd(permits, 6)
    await settle()
    permits.resize(2)
    await crowd.release(2)
    assert crowd.inside == 2
    await crowd.release(1)
    assert crowd.inside == 2
    await crowd.release(3)
    await asyncio.gather(*crowd.tasks)


async def test_a_waiter_that_is_cancelled_takes_nobody_s_turn() -> None:
    crowd = Crowd(Permits(1), 3)
    await settle()
    crowd.tasks[1].cancel()
    await crowd.release(1)
    assert crowd.inside == 1
    await crowd.release(1)
    await asyncio.gather(crowd.tasks[0], crowd.tasks[2])


async def test_who_stops_waiting_leaves_nothing_behind() -> None:
    permits = Permits(1)
    crowd = Crowd(permits, 4)
    await settle()
    for task in crowd.tasks[2:]:
        task.cancel()
    await settle()
    assert len(permits._waiting) == 1
    await crowd.release(2)
    await asyncio.gather(*crowd.tasks[:2])


async def test_a_permit_granted_to_one_who_is_cancelled_at_that_moment_is_not_lost() -> None:
    permits = Permits(1)
    crowd = Crowd(permits, 3)
    await settle()
    permits.resize(2)  # grants the second one's turn, which it has not seen yet
    crowd.tasks[1].cancel()
    await settle()
    assert crowd.inside == 2
    await crowd.release(2)
    await asyncio.gather(crowd.tasks[0], crowd.tasks[2])


async def test_draining_turns_away_those_who_wait_and_those_who_come_but_not_the_holders() -> None:
    permits = Permits(1)
    crowd = Crowd(permits, 2)
    await settle()
    permits.drain()
    with pytest.raises(Draining):
        await crowd.tasks[1]
    with pytest.raises(Draining):
        async with permits:
            pass
    await crowd.release(1)
    await crowd.tasks[0]


async def test_a_limit_of_none_turns_away_those_who_wait_and_those_who_come_but_not_the_holders() -> None:
    permits = Permits(1)
    crowd = Crowd(permits, 2)
    await settle()
    permits.resize(0)
    with pytest.raises(Draining):
        await asyncio.wait_for(crowd.tasks[1], timeout=10)
    with pytest.raises(Draining):
        await asyncio.wait_for(permits.__aenter__(), timeout=10)
    await crowd.release(1)
    await crowd.tasks[0]
    permits.resize(1)
    async with permits:
        assert permits.most_held == 1


async def test_how_many_may_be_held_is_known_until_the_limit_is_changed() -> None:
    permits = Permits(4)
    assert permits.most_held == 4
    crowd = Crowd(permits, 3)
    await settle()
    permits.resize(2)
    assert permits.most_held == 3
    permits.resize(5)
    permits.drain()
    assert permits.most_held == 3
    await crowd.release(3)
    assert permits.most_held == 0


async def test_a_permit_is_taken_without_waiting_only_if_nobody_waits_for_it() -> None:
    permits = Permits(2)
    assert [permits.try_take(), permits.try_take(), permits.try_take()] == [True, True, False]
    waiting = asyncio.create_task(permits.take())
    await settle()
    assert (permits.held, permits.waiting) == (2, 1)
    permits.give_back()
    assert not permits.try_take()
    await waiting
    permits.give_back()
    permits.drain()
    assert not permits.try_take()
    assert (permits.held, permits.waiting) == (1, 0)


async def test_a_gradual_limit_is_reached_by_one_more_with_each_permit_that_comes_back() -> None:
    permits = Permits(0, gradual=True)
    permits.resize(20)
    taken = 0
    while permits.try_take():
        taken += 1
    assert (taken, permits.limit, permits.most_held) == (16, 20, 20)
    permits.give_back()
    assert [permits.try_take(), permits.try_take(), permits.try_take()] == [True, True, False]
    for _ in range(10):
        permits.give_back()
    assert sum(permits.try_take() for _ in range(30)) == 13
    permits.resize(4)
    assert (permits.held, permits.most_held, permits.try_take()) == (20, 20, False)


async def test_a_refusal_costs_a_gradual_limit_one_permit_until_it_is_set_anew() -> None:
    permits = Permits(0, gradual=True)
    permits.resize(16)
    for _ in range(10):
        assert permits.try_take()
    permits.refuse()
    permits.refuse()
    assert (permits.limit, permits.kept) == (8, 0.5)
    for _ in range(20):
        permits.refuse()
    assert permits.limit == 1
    permits.resize(16)
    assert (permits.limit, permits.kept, permits.try_take()) == (16, 1.0, True)


async def test_a_refusal_changes_no_limit_that_was_stated() -> None:
    permits = Permits(4)
    permits.refuse()
    assert (permits.limit, permits.kept, Permits(0).kept) == (4, 1.0, 1.0)


@pytest.mark.parametrize("limit", [1, 64, 1000])
def test_there_are_more_slots_than_permits_so_that_none_is_idle(limit: int) -> None:
    assert slots(limit) > limit
