from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from genai_prices import calc_price
from genai_prices.types import Usage as PublicUsage

from batchord.contract import NO_USAGE, Usage
from batchord.errors import ConfigError
from batchord.prices import NANOS_PER_DOLLAR, Price, Prices, Rates, cost_of
from batchord.providers_file import load_routes
from batchord.routing import Provider
from batchord.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = "https://api.openai.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
PROXY = "http://127.0.0.1:8000/v1"
OWN = {"gpt-4o": {"input": 1, "output": 2}, "gpt-*": {"input": 0.5, "cached": 0.1, "output": 1.5}}


def prices(base_url: str = PROXY, kind: str = "openai", own: dict[str, Any] | None = None) -> Prices:
    provider = Provider.model_validate({"name": "p", "kind": kind, "base_url": base_url, "prices": own or {}})
    return Prices({"p": provider})


def cost(known: Prices, model: str, usage: Usage, at: float | None = None) -> int | None:
    return cost_of(known.of("p", model, time.time() if at is None else at), usage, succeeded=True)


@pytest.mark.parametrize(
    ("model", "usage", "nanos"),
    [
        ("gpt-4o", Usage(1_000, 0, 1_000), 3_000_000),
        ("gpt-4o", Usage(1_000, 1_000, 0), 1_000_000),  # no price for cached input: what other input costs
        ("gpt-5", Usage(1_000, 0, 1_000), 2_000_000),
        ("gpt-5", Usage(1_000, 400, 0), 340_000),
        ("gpt-5", Usage(0, 0, 1, 1), 1_500),  # reasoning is a part of the output
        ("gpt-5", Usage(1, 9, 0), 100),  # no more can be cached than came in
        ("other", Usage(1_000, 0, 1_000), None),
    ],
)
def test_the_first_own_price_that_matches_counts(model: str, usage: Usage, nanos: int | None) -> None:
    assert cost(prices(own=OWN), model, usage) == nanos


def test_an_own_price_goes_before_the_public_one_and_leaves_other_models_theirs() -> None:
    known = prices(OPENAI, own={"gpt-4o": {"input": 1000, "output": 1000}})
    assert cost(known, "gpt-4o", Usage(1_000)) == NANOS_PER_DOLLAR
    assert cost(known, "gpt-4o-mini", Usage(1_000_000)) == cost(prices(OPENAI), "gpt-4o-mini", Usage(1_000_000)) != 0


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENAI, "gpt-4o-mini"),
        (OPENAI, "gpt-4o-mini-2024-07-18"),
        (OPENAI, "text-embedding-3-small"),
        (OPENAI, "o3"),
        (GOOGLE, "gemini-2.5-pro"),
        ("https://api.deepseek.com", "deepseek-chat"),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o"),
        ("https://api.perplexity.ai", "sonar"),
    ],
)
@pytest.mark.parametrize("input_tokens", [1, 10_000, 200_000, 200_001, 300_000])
@pytest.mark.parametrize("at", [datetime(2026, 3, 1, 0, 10, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)])
def test_a_public_price_is_that_of_genai_prices(base_url: str, model: str, input_tokens: int, at: datetime) -> None:
    output_tokens = 0 if "embedding" in model else 700
    public = calc_price(
        PublicUsage(input_tokens=input_tokens, cache_read_tokens=input_tokens // 4, output_tokens=output_tokens),
        model,
        provider_api_url=base_url,
        genai_request_timestamp=at,
    )
    nanos = cost(prices(base_url), model, Usage(input_tokens, input_tokens // 4, output_tokens), at.timestamp())
    assert nanos == pytest.approx(float(public.total_price * NANOS_PER_DOLLAR), abs=1)


def test_a_tier_sets_the_rate_of_all_tokens_of_a_request() -> None:
    known = prices(GOOGLE)
    below, above = (cost(known, "gemini-2.5-pro", Usage(tokens)) for tokens in (200_000, 200_001))
    assert below is not None
    assert above is not None
    assert above > below * 1.9


@pytest.mark.parametrize(
    ("known", "model"),
    [
        (prices(), "llama-3.1-8b"),  # nobody knows what one's own hardware costs
        (prices(), "no-such-model"),
        (prices(OPENAI), "no-such-model"),
        (prices(OPENAI), "claude-sonnet-4-5"),  # a known host has its own models' prices only
        (prices(OPENAI), ""),
        (prices(kind="simulated"), "gpt-4o"),
        (prices(OPENAI), "whisper-1"),  # paid by the hour
    ],
)
def test_an_unknown_price_is_none_and_never_nothing(known: Prices, model: str) -> None:
    assert known.of("p", model, time.time()) is None
    assert cost(known, model, Usage(1_000, 0, 1_000)) is None


def test_behind_an_unknown_host_a_model_has_its_makers_price() -> None:
    assert cost(prices(PROXY), "gpt-4o-mini", Usage(1_000)) == cost(prices(OPENAI), "gpt-4o-mini", Usage(1_000))


def test_the_price_of_a_provider_that_is_not_configured_is_unknown() -> None:
    assert prices().of("gone", "gpt-4o", time.time()) is None


PRICE = Price((Rates(-1, 1_000_000, 500_000, 2_000_000),))
FREE = Price((Rates(-1, 0, 0, 0),))


@pytest.mark.parametrize(
    ("price", "usage", "succeeded", "nanos"),
    [
        (PRICE, Usage(3, 0, 2), True, 7_000),
        (PRICE, Usage(3, 0, 2), False, 7_000),
        (PRICE, NO_USAGE, False, 0),  # a refusal
        (None, NO_USAGE, False, 0),
        (PRICE, NO_USAGE, True, None),  # a success of unknown size
        (FREE, NO_USAGE, True, 0),
        (None, Usage(3, 0, 2), True, None),
        (Price((Rates(-1, 1_000_000, 0, None),)), Usage(3), True, 3_000),
        (Price((Rates(-1, 1_000_000, 0, None),)), Usage(3, 0, 1), True, None),
        (Price((Rates(-1, 1, 1, 1),), request=1_499), Usage(1), True, 2),  # to the nearest nano-dollar
    ],
)
def test_what_an_answer_costs(price: Price | None, usage: Usage, succeeded: bool, nanos: int | None) -> None:
    assert cost_of(price, usage, succeeded=succeeded) == nanos


def providers_file(folder: Path, table: str) -> Settings:
    path = folder / "providers.toml"
    path.write_text(f'[providers.x]\nbase_url = "{PROXY}"\n[providers.x.prices]\n{table}\n')
    return Settings(providers=path)


def test_the_providers_file_sets_prices_exactly(tmp_path: Path) -> None:
    settings = providers_file(tmp_path, '"gpt-*" = { input = 0.1, cached = 0.01, output = 0.3 }')
    known = Prices(load_routes(settings, {}).providers)
    assert known.of("x", "gpt-9", 0) == Price((Rates(-1, 100_000, 10_000, 300_000),))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('"gpt-*" = { input = 0.1 }', "providers.x.prices.gpt-*.output: Field required"),
        ('"gpt-*" = { input = -1, output = 1 }', "providers.x.prices.gpt-*.input: Input should be greater than"),
        ('"gpt-*" = { input = "much", output = 1 }', "providers.x.prices.gpt-*.input: Input should be a valid decimal"),
        ('"gpt-*" = { input = nan, output = 1 }', "providers.x.prices.gpt-*.input: Input should be a finite number"),
        ('"gpt-*" = { input = 1, output = 1, out = 1 }', "providers.x.prices.gpt-*.out: There is no such setting"),
        ('"gpt-*" = 0.5', "providers.x.prices.gpt-*: "),
    ],
)
def test_a_wrong_price_in_the_providers_file_is_named(tmp_path: Path, table: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_routes(providers_file(tmp_path, table), {})
    assert said in str(raised.value)
