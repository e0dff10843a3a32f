from __future__ import annotations

import pytest

from workers.providers.time_limits import TimeLimits

TOTAL = "The provider did not answer within 60 s; if it needs longer, raise its timeout_s."
SILENT = "The provider was silent for 5 s; if it needs longer, raise its read_timeout_s."


@pytest.mark.parametrize(
    ("silence_s", "moved_at", "now", "said", "next_at"),
    [
        (None, 100, 159.9, None, 160),
        (None, 100, 160, TOTAL, 160),
        (5, 100, 104.9, None, 105),
        (5, 100, 105, SILENT, 105),
        (5, 104, 105, None, 109),
        (5, 158, 159.9, None, 160),
        (5, 158, 160, TOTAL, 160),
        (5, 120, 170, TOTAL, 125),
        (90, 100, 160, TOTAL, 160),
    ],
)
def test_the_limit_that_is_reached_is_named_and_the_next_one_known(
    silence_s: float | None, moved_at: float, now: float, said: str | None, next_at: float
) -> None:
    limits = TimeLimits(60, silence_s)
    error = limits.reached(100, moved_at, now)
    assert (error.message if error else None) == said
    assert error is None or (error.code, error.is_unsent) == ("request_timeout", False)
    assert limits.next_at(100, moved_at) == next_at
