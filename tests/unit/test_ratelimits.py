from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.providers.ratelimits import read, seconds_until
from workers.providers.seam import StatedLimit

NOW = 1_800_000_000.0
OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}


def at(after_s: float) -> str:
    return datetime.fromtimestamp(NOW + after_s, UTC).isoformat().replace("+00:00", "Z")


def anthropic(kind: str, limit: int, remaining: int, after_s: float) -> dict[str, str]:
    stem = f"anthropic-ratelimit-{kind}"
    return {f"{stem}-limit": str(limit), f"{stem}-remaining": str(remaining), f"{stem}-reset": at(after_s)}


def test_openai_states_requests_and_tokens_a_minute() -> None:
    assert read(OPENAI, "openai", NOW) == (
        StatedLimit("requests", 60, 60, 59, 1),
        StatedLimit("tokens", 60, 150_000, 149_984, 360),
    )


def test_requests_may_be_a_days() -> None:
    requests, tokens = read(OPENAI, "daily_requests", NOW)
    assert (requests.window_s, tokens.window_s) == (86_400, 60)


def test_mistral_states_limits_without_a_reset() -> None:
    tokens = {"x-ratelimit-limit-tokens-minute": "5000000", "x-ratelimit-remaining-tokens-minute": "4999911"}
    requests = {"x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "717"}
    assert read(tokens | requests, "mistral", NOW) == (
        StatedLimit("requests", 60, 720, 717),
        StatedLimit("tokens", 60, 5_000_000, 4_999_911),
    )


def test_anthropic_states_its_resets_as_times() -> None:
    headers = anthropic("requests", 50, 49, 1) | anthropic("tokens", 90_000, 0, 30)
    assert read(headers, "anthropic", NOW) == (
        StatedLimit("requests", 60, 50, 49, 1),
        StatedLimit("tokens", 60, 90_000, 0, 30),
    )


def test_anthropics_input_and_output_limit_the_sum_only_where_no_total_is_stated() -> None:
    one_way = anthropic("input-tokens", 80_000, 5, 2) | anthropic("output-tokens", 10_000, 0, 3)
    left = (StatedLimit("tokens", 60, None, 5, 2), StatedLimit("tokens", 60, None, 0, 3))
    assert read(one_way, "anthropic", NOW) == (StatedLimit("tokens", 60, 90_000), *left)
    total = StatedLimit("tokens", 60, 70_000, 4, 5)
    assert read(one_way | anthropic("tokens", 70_000, 4, 5), "anthropic", NOW) == (total, *left)
    assert read(anthropic("output-tokens", 10_000, 0, 3), "anthropic", NOW) == (left[1],)


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "daily_requests", "none"])
def test_other_headers_say_nothing(dialect: str) -> None:
    assert read({"content-type": "application/json", "x-ratelimit-limit": "9"}, dialect, NOW) == ()  # type: ignore[arg-type]  # one of the table


@pytest.mark.parametrize("nonsense", ["", "-1", "nan", "inf", "unlimited", "1e3", "²", "1,000", "9" * 40])
def test_nonsense_is_no_limit(nonsense: str) -> None:
    assert read(dict.fromkeys(OPENAI, nonsense), "openai", NOW) == ()


def test_a_limit_of_none_is_no_limit_but_nothing_left_is_told() -> None:
    headers = {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}
    assert read(headers, "openai", NOW) == (StatedLimit("tokens", 60, None, 0, None),)


@pytest.mark.parametrize(
    ("reset", "after_s"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("1h", 3600),
        ("0", 0),
        ("7.5", 7.5),
        ("2m59.56s", 179.56),
        ("1m30ms", 60.03),
        (at(12.5), 12.5),
        (at(-5), 0),
        ("1d", 86_400),
        ("2d", None),
        ("1800000060", None),
        ("", None),
        ("s", None),
        ("5 s", None),
        ("1s1m", None),
        ("2027-01-15", None),
        ("2027-01-15T08:00:00", None),
        ("9999-99-99T99:99:99Z", None),
    ],
)
def test_resets_are_read(reset: str, after_s: float | None) -> None:
    assert seconds_until(reset, NOW) == (None if after_s is None else pytest.approx(after_s))


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59_999))
def test_a_duration_as_go_writes_it_is_read(hours: int, minutes: int, milliseconds: int) -> None:
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{milliseconds / 1000:g}s"
    expected = timedelta(hours=hours, minutes=minutes, seconds=float(f"{milliseconds / 1000:g}"))
    assert seconds_until(text, NOW) == pytest.approx(expected.total_seconds())


@given(st.text() | st.from_regex(r"[0-9dhmsTZ:.+-]{1,30}"))
def test_no_text_breaks_the_reader(text: str) -> None:
    after_s = seconds_until(text, NOW)
    assert after_s is None or 0 <= after_s <= 86_400
