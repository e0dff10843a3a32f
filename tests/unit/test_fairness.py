"""Whose turn it is at a provider, as a rule over values, and what follows from it for a queue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.errors import ConfigError
from batchord.settings import read_settings
from batchord.state.waiting import Queue, Waiting
from workers.fairness import turn

TENANTS = ("a", "b", "c")


def place(tenant: str, deadline: int = 100, created_at: int = 0, batch_id: str = "batch_x") -> Waiting:
    return Waiting(tenant, deadline, created_at, batch_id)


A, B = place("a"), place("b")


@pytest.mark.parametrize(
    ("first", "open_lines", "weights", "expected"),
    [
        ([], {"a": 4}, {}, None),
        ([A, B], {"a": 2, "b": 1}, {}, B),
        ([A, B], {"a": 2, "b": 1}, {"a": 3}, A),
        ([A, B], {"a": 5, "b": 4}, {}, B),
        ([A, B], {"a": 9, "b": 1}, {}, None),
        ([A, B], {"a": 10}, {}, B),
        ([A], {"b": 90}, {}, A),
        ([A], {"a": 9}, {}, A),
        ([A], {"a": 10}, {}, None),
        ([A, place("b", 99)], {}, {}, place("b", 99)),
        ([place("a", 100, 5), place("b", 100, 4)], {}, {}, place("b", 100, 4)),
        ([place("b", batch_id="2"), place("a", batch_id="3")], {}, {}, place("b", batch_id="2")),
    ],
)
def test_the_next_is_who_has_least_open_for_its_weight(
    first: list[Waiting], open_lines: dict[str, int], weights: dict[str, float], expected: Waiting | None
) -> None:
    assert turn(Queue(first, open_lines), weights, window_lines=10) == expected


def test_a_place_is_read_as_it_was_written_and_sorts_by_tenant_deadline_and_age() -> None:
    places = [place("a", 9, 7), place("a", 10, 5), place("a", 10, 6), place("a-b", 1, 1), place("ab", 1, 1)]
    entries = [each.entry for each in places]
    assert sorted(entries) == entries
    assert [Waiting.of(entry) for entry in entries] == places


@dataclass
class Line:
    """A provider's queue as it would be: shards in the order of their opening, each done when its last line is."""

    weights: dict[str, float]
    window_lines: int
    planned: dict[Waiting, list[int]]
    open: list[tuple[str, int]] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)

    @property
    def open_lines(self) -> Counter[str]:
        lines: Counter[str] = Counter()
        for tenant, count in self.open:
            lines[tenant] += count
        return lines

    def fill(self) -> None:
        """Open what may be opened, as `feed` does, where the script refuses what does not fit."""
        while following := turn(self.queue(), self.weights, self.window_lines):
            lines, own = self.planned[following][0], self.open_lines
            if own[following.tenant] and own.total() + lines > self.window_lines:
                return
            self.open.append((following.tenant, self.planned[following].pop(0)))
            self.planned = {place: shards for place, shards in self.planned.items() if shards}

    def queue(self) -> Queue:
        first: dict[str, Waiting] = {}
        for each in sorted(self.planned, key=lambda place: place.entry):
            first.setdefault(each.tenant, each)
        return Queue(list(first.values()), self.open_lines)

    def serve(self) -> None:
        """Seal the oldest shard."""
        tenant, lines = self.open.pop(0)
        self.served[tenant] += lines


@st.composite
def lines(draw: st.DrawFn) -> Line:
    places = draw(
        st.lists(
            st.builds(Waiting, st.sampled_from(TENANTS), st.integers(1, 3), st.integers(0, 3), st.uuids().map(str)),
            min_size=1,
            max_size=8,
        )
    )
    weights = draw(st.dictionaries(st.sampled_from(TENANTS), st.sampled_from([0.5, 1, 3]), max_size=3))
    planned = {each: draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)) for each in places}
    return Line(weights, draw(st.integers(1, 20)), planned)


@given(lines())
def test_everything_is_served_in_the_end_and_the_window_holds_but_for_first_shards(line: Line) -> None:
    planned: Counter[str] = Counter()
    for each, shards in line.planned.items():
        planned[each.tenant] += sum(shards)
    line.fill()
    while line.open:
        tenants = len(line.open_lines)
        assert line.open_lines.total() <= line.window_lines + 5 * tenants  # a shard of at most 5 each
        waiting = {each.tenant for each in line.planned}
        assert waiting <= set(line.open_lines)  # nobody waits without a shard in the queue
        line.serve()
        line.fill()
    assert not line.planned
    assert line.served == planned


@given(lines())
def test_a_batch_never_goes_before_one_of_its_tenant_with_an_earlier_deadline(line: Line) -> None:
    while following := turn(line.queue(), line.weights, 1_000_000):
        others = [each for each in line.planned if each.tenant == following.tenant]
        assert following == min(others, key=lambda each: (each.deadline, each.created_at, each.batch_id))
        line.open.append((following.tenant, line.planned[following].pop(0)))
        line.planned = {place: shards for place, shards in line.planned.items() if shards}


@pytest.mark.parametrize(("weights", "share"), [({}, 1), ({"a": 3}, 3), ({"b": 2}, 0.5), ({"a": 2, "b": 2}, 1)])
def test_tenants_are_served_by_their_weights(weights: dict[str, float], share: float) -> None:
    line = Line(weights, 40, {place("a"): [2] * 1_000, place("b"): [1] * 2_000})
    line.fill()
    for _ in range(600):
        line.serve()
        line.fill()
    assert line.served["a"] / line.served["b"] == pytest.approx(share, rel=0.1)


def test_a_small_batch_waits_for_no_more_than_a_window_of_a_large_one() -> None:
    line = Line({}, 4_000, {place("large"): [1_000] * 50})
    line.fill()
    line.planned[place("small")] = [10]
    line.fill()
    while not line.served["small"]:
        line.serve()
        line.fill()
    assert line.served["large"] <= 4_000


def test_weights_are_read_from_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHORD_TENANT_WEIGHTS", "a=3, b-2=0.5,")
    assert read_settings().tenant_weights == {"a": 3.0, "b-2": 0.5}


@pytest.mark.parametrize("weights", ["a", "a=", "=1", "a=1,a=2", "a=0", "a=-1", "a=many", "a=nan", "a=1001"])
def test_weights_that_are_none_are_refused(weights: str) -> None:
    with pytest.raises(ConfigError, match="BATCHORD_TENANT_WEIGHTS"):
        read_settings(tenant_weights=weights)
