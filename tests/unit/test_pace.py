"""Requests go at the rates that hold, whatever the workers do: in virtual time, with the real scripts."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchord.errors import BatchordError, StateUnavailableError
from batchord.routing import ModelLimits
from tests.unit.paced_fleet import Fleet, play, provider
from tests.unit.virtual_time import VirtualLoop


def test_where_nothing_is_limited_nobody_waits() -> None:
    async def scene() -> None:
        async with Fleet(provider(rate_headers="none")) as fleet:
            assert fleet.paces[0].is_free("m")
            await fleet.send_all(100)
            assert (fleet.times, fleet.calls) == ([0.0] * 100, 0)

    play(scene())


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("limits", "used"), [({"requests_per_minute": 6_000}, 0.99), ({"tokens_per_minute": 600_000}, 0.97)]
)
def test_a_rate_is_used_up_evenly_and_redis_asked_seldom(workers: int, limits: dict[str, int], used: float) -> None:
    async def scene() -> None:
        async with Fleet(provider(rate_headers="none", **limits), workers) as fleet:
            await fleet.send_all(500, tokens=100)
            assert fleet.times[-1] - fleet.times[0] == pytest.approx(5 / used, rel=0.01)
            assert min(fleet.gaps) >= 0.01 - fleet.round_trip_s
            assert fleet.calls < 25 * workers

    play(scene())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_way_to_redis_leaves_no_holes(workers: int) -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=6_000), workers, round_trip_s=0.1) as fleet:
            await fleet.send_all(500)
            assert fleet.times[-1] - fleet.times[0] == pytest.approx(5 / 0.99, rel=0.01)

    play(scene())


@pytest.mark.parametrize("seconds", [1_000, -1_000])
def test_a_clock_of_redis_that_jumps_neither_stops_nor_speeds_anybody(seconds: float) -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=600)) as fleet:
            await fleet.send_all(10)
            fleet.set_back(seconds)
            await fleet.send_all(10)
            assert fleet.times[-1] == pytest.approx(1.9 / 0.99, abs=0.5)
            assert sorted(fleet.gaps)[1] >= 0.09

    play(scene())


def test_first_come_first_served() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=600)) as fleet:
            await asyncio.gather(*(fleet.send(tokens=number) for number in range(30)))
            assert [tokens for _, tokens in fleet.sent] == list(range(30))

    play(scene())


def test_who_waits_for_a_slow_rate_knows_when_to_wake() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=2, rate_headers="none"), workers=4) as fleet:
            await fleet.send_all(12)
            assert fleet.times[-1] == pytest.approx(11 * 30 / 0.99, abs=1)
            assert fleet.calls <= 12 * 4

    play(scene())


def test_a_slow_model_holds_up_no_other() -> None:
    async def scene() -> None:
        limits = {"slow": ModelLimits(requests_per_minute=6)}
        async with Fleet(provider(requests_per_minute=600, limits=limits)) as fleet:
            slow = [asyncio.create_task(fleet.send(model="slow")) for _ in range(3)]
            await asyncio.gather(*(fleet.send(model="m") for _ in range(100)))
            assert fleet.times[-1] == pytest.approx(10, abs=0.5)
            await asyncio.gather(*slow)
            assert fleet.times[-1] == pytest.approx(20, abs=0.5)

    play(scene())


def test_who_is_cancelled_leaves_no_gap() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=600)) as fleet:
            tasks = [asyncio.create_task(fleet.send()) for _ in range(60)]
            await asyncio.sleep(0.25)
            for task in tasks[5:30]:
                task.cancel()
            await asyncio.wait(tasks)
            assert len(fleet.sent) == 35
            assert max(fleet.gaps) == pytest.approx(0.1 / 0.99, abs=0.01)

    play(scene())


def test_times_that_were_reserved_are_not_used_after_a_pause() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=6_000)) as fleet:
            lines = asyncio.create_task(fleet.send_all(100))
            await asyncio.sleep(0.1)
            sent = len(fleet.sent)
            fleet.paces[0].void()
            await asyncio.sleep(0.2)
            assert len(fleet.sent) <= sent + 1
            await lines
            assert min(fleet.gaps) >= 0.009

    play(scene())


def test_an_answer_on_its_way_during_a_pause_is_not_used_either() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=60), round_trip_s=0.2) as fleet:
            line = asyncio.create_task(fleet.send())
            await asyncio.sleep(0.15)
            fleet.paces[0].void()
            await line
            assert fleet.times[0] >= 1

    play(scene())


def test_a_process_that_stood_still_makes_no_burst() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=6_000)) as fleet:
            lines = asyncio.create_task(fleet.send_all(200))
            await asyncio.sleep(0.1)
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.advance(10)
            woken_at = loop.time()
            await asyncio.sleep(0.2)
            assert sum(time >= woken_at for time in fleet.times) <= 21
            await lines
            assert len(fleet.sent) == 200

    play(scene())


@pytest.mark.parametrize(("used", "next_at"), [(50, 0.5), (200, 2.0), (100, 1.0)])
def test_the_tokens_that_were_used_count_in_the_end(used: int, next_at: float) -> None:
    async def scene() -> None:
        async with Fleet(provider(tokens_per_minute=60 * 10_000)) as fleet:
            await asyncio.gather(*(fleet.send(tokens=100) for _ in range(100)))
            for _ in range(100):
                fleet.paces[0].settle("m", 100, used)
            begin = fleet.times[-1]
            await fleet.send(tokens=100)
            assert fleet.times[-1] - begin == pytest.approx(max(0.0, next_at - 1) / 0.97 + 0.01, abs=0.02)

    play(scene())


def test_a_correction_reaches_the_fleet_though_nothing_more_is_sent() -> None:
    async def scene() -> None:
        async with Fleet(provider(tokens_per_minute=6_000), workers=2) as fleet:
            await fleet.send(0, tokens=100)
            fleet.paces[0].settle("m", 100, 1_000)
            await asyncio.sleep(1.1)
            await fleet.send(1, tokens=1)
            assert fleet.times[-1] == pytest.approx(10.3, abs=0.2)

    play(scene())


@pytest.mark.parametrize(
    ("now", "last_at"), [({"requests_per_minute": 6_000}, 3.1), ({"requests_per_minute": 60}, 11.1), ({}, 0)]
)
def test_lines_that_wait_go_at_a_changed_rate_at_once(now: dict[str, int], last_at: float) -> None:
    async def scene() -> None:
        async with Fleet(provider(rate_headers="none", requests_per_minute=20)) as fleet:
            lines = asyncio.gather(*(fleet.send(tokens=number) for number in range(10)))
            await asyncio.sleep(0.01)
            fleet.paces[0].adopt(provider(rate_headers="none", **now))
            await lines
            assert [tokens for _, tokens in fleet.sent] == [*range(10)]
            assert fleet.times[-1] == pytest.approx(last_at, abs=0.1)

    play(scene())


def test_what_takes_more_than_a_minutes_limit_goes_all_the_same_and_the_rest_waits() -> None:
    async def scene() -> None:
        async with Fleet(provider(tokens_per_minute=1_000)) as fleet:
            await fleet.send(tokens=3_000)
            await fleet.send(tokens=1)
            assert fleet.times == pytest.approx([0, 180 / 0.97], abs=0.1)

    play(scene())


def test_lines_wait_while_redis_is_away() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=6_000)) as fleet:
            fleet.trouble = StateUnavailableError("away")
            lines = asyncio.create_task(fleet.send_all(10))
            await asyncio.sleep(20)
            assert fleet.sent == []
            fleet.trouble = None
            await lines
            assert len(fleet.sent) == 10

    play(scene())


def test_who_waits_hears_that_redis_refuses_for_good() -> None:
    async def scene() -> None:
        async with Fleet(provider(requests_per_minute=60, rate_headers="none")) as fleet:
            fleet.trouble = BatchordError("refused")
            with pytest.raises(BatchordError, match="refused"):
                await fleet.send_all(3)
            fleet.trouble = None
            await fleet.send()

    play(scene())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.sampled_from([1, 3, 20, 60, 150]),
    by_tokens=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["send", "send", "send", "cancel", "void", "clock back"]),
            st.floats(0, 20),
        ),
        max_size=25,
    ),
)
def test_no_minute_ever_sees_more_than_the_limit(
    limit: int, by_tokens: bool, steps: list[tuple[int, str, float]]
) -> None:
    async def scene() -> None:
        limits = {"tokens_per_minute": limit * 10} if by_tokens else {"requests_per_minute": limit}
        async with Fleet(provider(rate_headers="none", **limits), workers=3, round_trip_s=0) as fleet:
            lines: list[asyncio.Task[None]] = []
            for worker, step, pause_s in steps:
                if step == "send":
                    lines += [asyncio.create_task(fleet.send(worker, 10 if by_tokens else 1)) for _ in range(20)]
                elif step == "cancel" and lines:
                    lines[len(lines) // 2].cancel()
                elif step == "void":
                    fleet.paces[worker].void()
                elif step == "clock back":
                    fleet.set_back(pause_s)
                await asyncio.sleep(pause_s)
            await asyncio.wait([*lines, asyncio.create_task(asyncio.sleep(120))], timeout=120)
            for line in lines:
                line.cancel()
            await asyncio.gather(*lines, return_exceptions=True)
            assert not fleet.sent or fleet.most_in_a_minute() <= limit * (10 if by_tokens else 1)

    play(scene())


def test_lines_are_estimated_by_what_answers_reported_while_they_waited() -> None:
    async def scene() -> None:
        async with Fleet(provider(tokens_per_minute=60_000)) as fleet:
            guess = [10_000]
            lines = [asyncio.create_task(fleet.paces[0].turn("m", lambda: guess[0])) for _ in range(20)]
            assert await lines[0] == 10_000
            guess[0] = 100
            fleet.paces[0].settle("m", 10_000, 100)
            assert await asyncio.gather(*lines[1:]) == [100] * 19
            assert asyncio.get_running_loop().time() < 5

    play(scene())
