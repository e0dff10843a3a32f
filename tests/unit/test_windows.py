from __future__ import annotations

import pytest

from batchord.errors import InvalidRequestError
from batchord.windows import window_seconds


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86_400), ("1h", 3_600), ("30m", 1_800), ("7d", 604_800)])
def test_a_window_is_a_number_of_minutes_hours_or_days(window: str, seconds: int) -> None:
    assert window_seconds(window) == seconds


@pytest.mark.parametrize("window", ["", "24", "h", "0h", "-1h", "24H", "1.5h", "24h ", "1w", "100000h"])
def test_any_other_window_is_refused(window: str) -> None:
    with pytest.raises(InvalidRequestError, match="completion_window"):
        window_seconds(window)
