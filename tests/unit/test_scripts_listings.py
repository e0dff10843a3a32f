from __future__ import annotations

import pytest

from batchord.state import listings
from tests.unit.fake_state import FakeState

LISTING = "listing"
MEMBERS = [("a", 1.0), ("c", 2.25), ("b", 2.25), ("d", 2.5), ("e", 9.0)]
OLDEST_FIRST = ["a", "b", "c", "d", "e"]


@pytest.fixture(params=[2, 3])
def state(request: pytest.FixtureRequest) -> FakeState:
    """A state that keeps the listing, whichever protocol its connection speaks."""
    state = FakeState(request.param)
    state.run_all([listings.note(LISTING, member, at) for member, at in MEMBERS])
    return state


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_give_every_member_once_and_in_order(state: FakeState, newest_first: bool, most: int) -> None:
    seen: list[str] = []
    while True:
        after = seen[-1] if seen else None
        page = state.run(listings.page(LISTING, after=after, most=most, newest_first=newest_first))
        assert page is not None
        if not page:
            break
        assert len(page) <= most
        seen += page
    assert seen == (OLDEST_FIRST[::-1] if newest_first else OLDEST_FIRST)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, OLDEST_FIRST),
        (2.25, None, ["b", "c", "d", "e"]),
        (2.26, 9.0, ["d", "e"]),
        (None, 2.25, ["a", "b", "c"]),
        (3, 4, []),
        (9, 1, []),
    ],
)
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_keeps_to_its_times(
    state: FakeState, since: float | None, until: float | None, expected: list[str], newest_first: bool
) -> None:
    call = listings.page(LISTING, after=None, most=9, newest_first=newest_first, since=since, until=until)
    assert state.run(call) == (expected[::-1] if newest_first else expected)


def test_a_page_goes_on_inside_its_times(state: FakeState) -> None:
    assert state.run(listings.page(LISTING, after="d", most=1, since=2, until=3)) == ["c"]
    assert state.run(listings.page(LISTING, after="e", most=9, since=2, until=3)) == ["d", "c", "b"]
    assert state.run(listings.page(LISTING, after="a", most=9, since=2, until=3)) == []


def test_a_page_after_one_that_is_not_listed_is_none(state: FakeState) -> None:
    assert state.run(listings.page(LISTING, after="x", most=1)) is None
    assert state.run(listings.page("empty", after="x", most=1)) is None
    assert state.run(listings.page("empty", after=None, most=1)) == []


def test_a_member_noted_twice_keeps_its_place_and_a_dropped_one_is_gone(state: FakeState) -> None:
    state.run(listings.note(LISTING, "a", 99.0))
    state.run(listings.drop(LISTING, ["c", "x"]))
    assert state.run(listings.page(LISTING, after=None, most=9, newest_first=False)) == ["a", "b", "d", "e"]
