"""A Valkey that is killed again and again, and is started again on its own folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.chaos.checks import assert_unharmed
from tests.chaos.schedule import sized
from tests.chaos.stage import Stage
from tests.upstream import Rule, run_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.schedule import Schedule

SLOW_S = 7.5
"""Longer than any claim, any message and any stall may go without a sign of life."""


def test_a_redis_that_is_killed_forgets_nothing_that_it_was_told(tmp_path: Path, schedule: Schedule) -> None:
    lines = sized(300, 6_000)
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream) as stage:
        upstream.rules = [Rule(match=f"<{lines // 2}>", latency_s=SLOW_S)]
        stage.assemble(2)
        stage.submit(lines)
        for moment in schedule.moments(sized(2, 3), lines):
            stage.await_moment(moment)
            stage.restart_redis()
        assert_unharmed(stage)
