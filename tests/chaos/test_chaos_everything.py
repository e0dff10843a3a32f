"""Everything at once: any fault after any other, and some while another one lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.cli import wait_until
from tests.chaos.checks import assert_unharmed
from tests.chaos.proxy import Proxies
from tests.chaos.schedule import last, long_only, say
from tests.chaos.stage import Stage
from tests.upstream import run_upstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.schedule import Schedule


def kill_worker(stage: Stage, schedule: Schedule) -> None:
    stage.strike_down(schedule.pick(stage.running))
    stage.launch()


def kill_redis(stage: Stage, _schedule: Schedule) -> None:
    stage.restart_redis()


def replace_worker(stage: Stage, schedule: Schedule) -> None:
    stage.assemble(1)
    member = schedule.pick(stage.running)
    assert member.drain() == 0
    say(f"drained {member.name}")


def stop_worker(stage: Stage, schedule: Schedule) -> None:
    with stage.stopped(schedule.pick(stage.running)):
        last(schedule.between(1, 10))


def cut_worker_off(stage: Stage, schedule: Schedule) -> None:
    with stage.cut_off(schedule.pick(stage.running)):
        last(schedule.between(1, 10))


def spoil_answers(stage: Stage, schedule: Schedule) -> None:
    way = schedule.pick(stage.running).ways["provider"]
    way.mode = schedule.pick(["refuse", "stall", "delay", "cut", "answer_twice", "ask_twice"])
    say(f"the provider's way: {way.mode}")
    last(schedule.between(0.2, 2))
    way.mode = "pass"


def take_storage_away_and_kill(stage: Stage, schedule: Schedule) -> None:
    met = stage.troubles("The storage failed")

    def is_noticed() -> bool:
        return stage.troubles("The storage failed") > met or stage.batch.status.is_terminal

    with stage.storage_away():
        wait_until(is_noticed, "a worker meets the trouble")
        stage.strike_down(schedule.pick(stage.running))
    stage.launch()


FAULTS: list[Callable[[Stage, Schedule], None]] = [
    kill_worker,
    kill_redis,
    replace_worker,
    stop_worker,
    cut_worker_off,
    spoil_answers,
    take_storage_away_and_kill,
]


@long_only
def test_everything_at_once(tmp_path: Path, schedule: Schedule) -> None:
    lines, faults = 8_000, 30
    with (
        Proxies(schedule.seed) as proxies,
        run_upstream(latency_s=0.2) as upstream,
        Stage(tmp_path, upstream, proxies=proxies) as stage,
    ):
        stage.assemble(3)
        stage.submit(lines)
        for moment in schedule.moments(faults, lines):
            stage.await_moment(moment)
            schedule.pick(FAULTS)(stage, schedule)
        assert_unharmed(stage)


@long_only
def test_a_storage_that_is_away_while_a_worker_is_killed_loses_nothing(tmp_path: Path, schedule: Schedule) -> None:
    lines = 2_000
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream) as stage:
        stage.assemble(2)
        stage.submit(lines)
        for moment in schedule.moments(5, lines):
            stage.await_moment(moment)
            take_storage_away_and_kill(stage, schedule)
        assert_unharmed(stage)
