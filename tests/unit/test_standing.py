"""What is said of providers to whoever waits for them."""

from __future__ import annotations

import pytest

from batchord.standing import Onlooker, trouble
from batchord.state.conditions import ProviderCondition
from batchord.state.reports import ProviderView, Report


def view(*reports: Report, **condition: float | str) -> ProviderView:
    return ProviderView("p", ProviderCondition("p", now=100, **condition), list(reports))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({}, None),
        ({"answered_at": 90}, None),
        ({"answered_at": 90, "failing_since": 95, "reason": "status 500"}, None),
        ({"failing_since": 88, "reason": "connection refused"}, "p has not answered yet: connection refused, 12 s"),
        ({"pause_until": 130, "reason": "429"}, "p asks to wait 30 s (429)"),
        ({"pause_until": 99, "answered_at": 99, "reason": "429"}, None),
        (
            {"answered_at": 50, "failing_since": 60, "open_until": 104, "reason": "status 503"},
            "p fails: status 503; it is tried again in 4 s",
        ),
        (
            {"answered_at": 50, "failing_since": 60, "open_until": 99, "reason": "status 503"},
            "p fails: status 503; it is being tried again",
        ),
    ],
)
def test_what_keeps_a_provider_s_lines_is_said_with_its_reason(
    condition: dict[str, float | str], said: str | None
) -> None:
    assert trouble(view(**condition)) == said


def test_first_requests_that_are_long_under_way_are_said_to_be() -> None:
    onlooker, waits = Onlooker(), view(Report("w", in_flight=8, sent=8))
    assert [onlooker.say([waits], now) for now in (10, 14)] == ["", ""]
    assert onlooker.say([waits], 22) == "p has not answered yet: 8 requests in flight, 12 s"
    assert onlooker.say([view(Report("w", in_flight=8, sent=9))], 23) == ""
    assert onlooker.say([waits], 24) == ""


@pytest.mark.parametrize(
    "answered", [view(Report("w", in_flight=8, sent=8), answered_at=50), view(Report("w", in_flight=8, sent=20))]
)
def test_a_provider_that_has_answered_may_take_its_time(answered: ProviderView) -> None:
    onlooker = Onlooker()
    assert [onlooker.say([answered], now) for now in (0, 1_000)] == ["", ""]


def test_the_troubles_of_all_providers_are_said() -> None:
    paused = view(pause_until=110, reason="429")
    assert Onlooker().say([paused, view(), paused], 0).count("p asks to wait 10 s (429)") == 2
