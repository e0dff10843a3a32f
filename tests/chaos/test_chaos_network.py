"""A network between workers, Redis and their provider that drops, delays, cuts, stalls and says things twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import wait_until
from tests.chaos.checks import assert_unharmed
from tests.chaos.proxy import AGAIN, Proxies
from tests.chaos.schedule import last, long_only, say, sized
from tests.chaos.stage import RECOVERED_S, Stage
from tests.upstream import run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.chaos.proxy import Mode
    from tests.chaos.schedule import Schedule

LINES = sized(300, 4_000)
SHORT_FAULTS = sized(6, 24)
LONG_CLAIMS = {"BATCHORD_CLAIM_S": "20", "BATCHORD_VISIBILITY_TIMEOUT_S": "20"}
"""Where a fault shall be shorter than these, on a slow machine too, so that nothing is to be sent twice."""
TO_REDIS: Sequence[Mode] = ("refuse", "stall", "delay", "cut")
TO_PROVIDER: Sequence[Mode] = ("refuse", "stall", "delay", "cut", "answer_twice", "ask_twice")


@pytest.fixture
def proxies(schedule: Schedule) -> Iterator[Proxies]:
    with Proxies(schedule.seed) as proxies:
        yield proxies


@pytest.fixture
def stage(tmp_path: Path, proxies: Proxies) -> Iterator[Stage]:
    """A batch under way, on two workers whose ways lead through proxies."""
    with run_upstream(latency_s=0.1) as upstream, Stage(tmp_path, upstream, proxies=proxies, env=LONG_CLAIMS) as stage:
        stage.assemble(2)
        stage.submit(LINES)
        yield stage


def disturb(stage: Stage, schedule: Schedule, way: str, modes: Sequence[Mode]) -> None:
    """Spoil a worker's way for a while at each moment, in each mode in turn."""
    for number, moment in enumerate(schedule.moments(SHORT_FAULTS, LINES)):
        stage.await_moment(moment)
        member, mode = schedule.pick(stage.running), modes[number % len(modes)]
        member.ways[way].mode = mode
        last(schedule.between(0.2, 1.0))
        member.ways[way].mode = "pass"
        say(f"the way of {member.name} to the {way}: {mode} after {moment} requests")


def test_a_bad_way_to_redis_loses_nothing_and_sends_nothing_twice(stage: Stage, schedule: Schedule) -> None:
    disturb(stage, schedule, "redis", TO_REDIS)
    assert_unharmed(stage)


def test_a_bad_way_to_the_provider_costs_a_retry_for_each_answer_that_it_spoils(
    stage: Stage, schedule: Schedule
) -> None:
    disturb(stage, schedule, "provider", TO_PROVIDER)
    assert_unharmed(stage)
    proxied = sum(seen.path.startswith(AGAIN.strip().decode()) for seen in stage.upstream.requests)
    say(f"{stage.hurt_answers} answers spoilt, {proxied} requests sent once more by the proxy")


@long_only
def test_a_worker_cut_off_from_redis_for_longer_than_its_claims_hold_comes_back_and_changes_nothing(
    tmp_path: Path, schedule: Schedule, proxies: Proxies
) -> None:
    with run_upstream(latency_s=0.2) as upstream, Stage(tmp_path, upstream, concurrency=20, proxies=proxies) as stage:
        stage.assemble(2)
        stage.submit(LINES)
        stage.await_moment(schedule.moments(3, LINES)[0])
        with stage.cut_off(schedule.pick(stage.running)):
            in_vain = {sent.line for sent in stage.sent() if stage.is_excused(sent)}
            wait_until(lambda: in_vain <= stage.recorded(), "its lines are answered by others", RECOVERED_S)
        assert_unharmed(stage)
        assert max(Counter(sent.line for sent in stage.sent()).values()) <= 2
