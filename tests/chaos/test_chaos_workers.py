"""Workers that are killed, stopped and restarted under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batchord import Status
from tests.acceptance.cli import wait_until
from tests.chaos.checks import assert_answered_once, assert_unharmed
from tests.chaos.schedule import long_only, sized
from tests.chaos.stage import RECOVERED_S, Stage
from tests.upstream import run_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.schedule import Schedule


def test_workers_killed_again_and_again_lose_nothing(tmp_path: Path, schedule: Schedule) -> None:
    lines, kills = sized(300, 6_000), sized(2, 20)
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream) as stage:
        stage.assemble(sized(2, 3))
        stage.submit(lines)
        for moment in schedule.moments(kills, lines):
            stage.await_moment(moment)
            stage.strike_down(schedule.pick(stage.running))
            stage.launch()
        stage.say_recovery()
        assert_unharmed(stage)


@pytest.mark.parametrize(
    "returns", [pytest.param("while the batch runs", marks=long_only), pytest.param("after its end")]
)
def test_a_worker_that_stood_still_for_longer_than_its_claims_hold_comes_back_and_changes_nothing(
    tmp_path: Path, schedule: Schedule, returns: str
) -> None:
    lines = sized(300, 2_000)
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream, concurrency=20) as stage:
        stage.assemble(2)
        batch = stage.submit(lines)
        stage.await_moment(schedule.moments(3, lines)[0])
        member = schedule.pick(stage.running)
        with stage.stopped(member):
            if returns == "after its end":
                assert batch.wait(timeout_s=RECOVERED_S) is Status.COMPLETED
                assert_answered_once(batch, lines)
            else:
                in_flight = {sent.line for sent in stage.sent() if stage.is_excused(sent)}
                wait_until(lambda: in_flight <= stage.recorded(), "its lines are answered by others", RECOVERED_S)
        assert_unharmed(stage)


def test_a_rolling_restart_under_load_sends_nothing_twice(tmp_path: Path, schedule: Schedule) -> None:
    lines, size = sized(500, 4_000), sized(2, 3)
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream, concurrency=20) as stage:
        stage.assemble(size)
        stage.submit(lines)
        for moment in schedule.moments(sized(2, 2 * size), lines):
            stage.await_moment(moment)
            stage.assemble(1)
            assert stage.running[0].drain() == 0
        assert_unharmed(stage)
