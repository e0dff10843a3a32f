"""A provider's limit is shared by the workers, and their parts together never pass it."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass

import pytest

from batchord.state import keys, shares
from batchord.state.calls import Call
from batchord.state.shares import Ask, Part
from tests.unit.fake_state import FakeState, fields, is_documented
from workers.identity import is_dead, new_name

LIFE_S = 30


def take(state: FakeState, worker: str, held: int = 0, limit: int = 20, workers: int = 1) -> Part:
    (part,) = state.run(shares.take(worker, [Ask("p", held, limit)], LIFE_S, workers))
    return part


def settled(state: FakeState, workers: list[str], limit: int) -> list[int]:
    """What each has in the end, if what it has is what it holds."""
    parts = dict.fromkeys(workers, 0)
    for _ in range(4):
        for worker in workers:
            parts[worker] = take(state, worker, parts[worker], limit).now
    return sorted(parts.values(), reverse=True)


def test_one_worker_has_it_all() -> None:
    assert take(FakeState(), "a") == Part(now=20, due=20)


def test_a_second_worker_waits_for_what_the_first_one_holds() -> None:
    state = FakeState()
    take(state, "a")
    assert take(state, "b") == Part(now=0, due=10)
    assert take(state, "a", held=17) == Part(now=10, due=10)
    assert take(state, "b") == Part(now=3, due=10)
    take(state, "a", held=10)
    assert take(state, "b", held=3) == Part(now=10, due=10)


@pytest.mark.parametrize(
    ("limit", "count", "parts"),
    [
        (20, 1, [20]),
        (20, 2, [10, 10]),
        (20, 3, [7, 7, 6]),
        (3, 3, [1, 1, 1]),
        (2, 4, [1, 1, 0, 0]),
        (1, 3, [1, 0, 0]),
    ],
)
def test_in_the_end_the_parts_are_equal_and_the_whole_is_used(limit: int, count: int, parts: list[int]) -> None:
    assert settled(FakeState(), [f"w{number}" for number in range(count)], limit) == parts


def test_a_part_is_kept_free_for_workers_that_are_said_to_come() -> None:
    state = FakeState()
    assert take(state, "a", workers=4) == take(state, "b", workers=4) == Part(now=5, due=5)


def test_a_worker_that_drains_keeps_what_it_holds_and_leaves_the_rest_at_once() -> None:
    state = FakeState()
    take(state, "a", workers=2)
    take(state, "b", workers=2)
    take(state, "a", held=4, limit=0)
    assert take(state, "b", held=10) == Part(now=16, due=20)
    take(state, "a", held=0, limit=0)
    assert take(state, "b", held=16) == Part(now=20, due=20)
    assert list(fields(state, keys.SHARES)) == ["p b"]


def test_a_worker_that_ends_leaves_nothing() -> None:
    state = FakeState()
    take(state, "a", held=5)
    state.run(shares.leave("a", ["p"]))
    assert fields(state, keys.SHARES) == {}


def test_what_a_dead_worker_had_is_free_after_its_time_or_when_it_is_known_to_be_dead() -> None:
    state = FakeState()
    take(state, "dead")
    assert take(state, "b").now == 0
    assert state.run(shares.holders()) == ["p dead", "p b"]
    state.run(shares.drop(["p dead"]))
    assert take(state, "b").now == 20
    state.run(Call(("HSET", keys.SHARES, "p late", "20 1 1"), bool))
    take(state, "b", held=20)
    assert take(state, "b").now == 20
    assert list(fields(state, keys.SHARES)) == ["p b"]


def test_providers_are_shared_apart() -> None:
    state = FakeState()
    asks = [Ask("p", 0, 20), Ask("q", 0, 8)]
    assert [part.now for part in state.run(shares.take("a", asks, LIFE_S, 1))] == [20, 8]
    take(state, "a", held=0)
    assert state.run(shares.take("b", [Ask("q", 0, 8)], LIFE_S, 1)) == [Part(now=0, due=4)]


def test_the_lane_of_some_models_is_shared_like_a_provider_whatever_their_glob_is() -> None:
    state = FakeState()
    lane = "p/a model *"
    asks = [Ask("p", 0, 20), Ask(lane, 0, 4)]
    assert [part.now for part in state.run(shares.take("a", asks, LIFE_S, 1))] == [20, 4]
    assert state.run(shares.take("b", [Ask(lane, 0, 4)], LIFE_S, 1)) == [Part(now=0, due=2)]
    state.run(shares.leave("a", ["p", lane]))
    assert list(fields(state, keys.SHARES)) == [f"{lane} b"]


def test_only_a_worker_whose_process_could_be_seen_from_here_is_found_dead() -> None:
    own = new_name()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(timeout=30)
    head, _, tail = own.rsplit("-", 2)
    other_place = "0" * 8 if tail[:8] != "0" * 8 else "1" * 8
    assert is_dead(f"{head}-{ended.pid}-{tail}", own)
    assert is_dead(new_name(), own)  # of this very pid, so of a process before this one
    assert not is_dead(own, own)
    assert not is_dead(f"{head}-1-{tail}", own)
    assert not is_dead(f"another-{ended.pid}-{tail}", own)
    assert not is_dead(f"{head}-{ended.pid}-{other_place}{tail[8:]}", own)


def test_the_key_is_documented() -> None:
    state = FakeState()
    take(state, "a")
    assert is_documented(keys.SHARES)


@pytest.mark.parametrize("seed", range(6))
def test_whoever_comes_goes_or_hears_late_what_is_held_never_passes_the_limit(seed: int) -> None:
    state, chance, limit = FakeState(), random.Random(seed), 13
    workers: dict[str, Worker] = {}
    for step in range(150):
        name = chance.choice([*workers, f"w{step}"] if len(workers) < 5 else [*workers])
        worker = workers.setdefault(name, Worker())
        if worker.answer is not None:
            worker.limit, worker.answer = worker.answer, None
        elif chance.random() < 0.1:
            state.run(shares.leave(name, ["p"]))  # its requests have ended
            del workers[name]
        else:
            worker.answer = take(state, name, max(worker.held, worker.limit), limit).now
        for each in workers.values():  # requests end, and others are begun where the limit allows it
            each.held = max(each.held, each.limit) if chance.random() < 0.5 else chance.randint(0, each.held)
        assert sum(each.held for each in workers.values()) <= limit


@dataclass
class Worker:
    """What a worker holds, may hold, and has been answered without having heard it yet."""

    held: int = 0
    limit: int = 0
    answer: int | None = None
