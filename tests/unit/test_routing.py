from __future__ import annotations

import pytest
from pydantic import ValidationError

from batchord.routing import Provider, Route, Routes, Way, Ways

ROUTES = Routes(
    [
        Provider(name="local", base_url="http://127.0.0.1:8000/v1", models=("llama-*", "qwen?")),
        Provider(name="cloud", base_url="https://example.org/v1", models=("gpt-*",), single_model=True),
        Provider(name="sim", kind="simulated", models=("llama-tiny", "exact")),
    ]
)


@pytest.mark.parametrize(
    ("model", "route"),
    [
        ("llama-3", Route("local", "llama-3")),
        ("llama-tiny", Route("local", "llama-tiny")),
        ("qwen3", Route("local", "qwen3")),
        ("qwen33", None),
        ("LLAMA-3", None),
        ("gpt-5", Route("cloud", "gpt-5", single_model=True)),
        ("sim:anything", Route("sim", "anything", is_named=True)),
        ("sim:", None),
        ("sim:local:llama-3", Route("sim", "local:llama-3", is_named=True)),
        ("other:llama-3", None),
        ("llama-3:8b", Route("local", "llama-3:8b")),
        ("", None),
    ],
)
def test_a_model_goes_to_the_provider_it_names_or_the_first_whose_glob_matches(model: str, route: Route | None) -> None:
    assert ROUTES.route(model) == route


def test_the_patterns_say_what_is_configured() -> None:
    assert ROUTES.patterns == ["local: llama-*, qwen?", "cloud: gpt-*", "sim: llama-tiny, exact"]


def at(name: str, **given: object) -> Provider:
    return Provider.model_validate({"name": name, "base_url": "http://127.0.0.1/v1", **given})


def test_a_line_is_answered_by_the_provider_of_its_queue_alone_if_nothing_else_is_said() -> None:
    assert ROUTES.ways("local", "llama-tiny") == Ways((Way("local", "llama-tiny"),))


def test_providers_of_one_model_that_state_a_weight_share_its_lines() -> None:
    routes = Routes([at("a", weight=1), at("b"), at("c", weight=3), at("d", weight=1, models=["other"])])
    assert routes.ways("a", "m") == Ways((Way("a", "m"), Way("c", "m")))
    assert routes.helpers_of("a") == {"c", "d"}
    assert routes.helpers_of("b") == frozenset()


def test_a_line_that_names_its_provider_is_shared_with_nobody_but_may_fall_back() -> None:
    routes = Routes([at("a", weight=1, fallback=["b"]), at("b", weight=1)])
    assert routes.ways("a", "m", is_named=True) == Ways((Way("a", "m"),), (Way("b", "m"),))
    assert routes.ways("a", "m") == Ways((Way("a", "m"), Way("b", "m")))


def test_each_provider_is_asked_for_what_it_calls_the_model() -> None:
    routes = Routes([at("a", fallback=["b"]), at("b", models=["x"], model_names={"gpt-5": "openai/gpt-5"})])
    assert routes.ways("a", "gpt-5") == Ways((Way("a", "gpt-5"),), (Way("b", "openai/gpt-5"),))
    assert routes.ways("a", "other") == Ways((Way("a", "other"),), (Way("b", "other"),))
    assert routes.route("openai/gpt-5") == Route("a", "openai/gpt-5")
    assert Routes([at("b", models=["x"], model_names={"gpt-5": "openai/gpt-5"})]).route("gpt-5") == Route("b", "gpt-5")


def test_a_provider_that_cannot_serve_a_line_is_left_out() -> None:
    ways = Ways((Way("a", "m"), Way("b", "m")), (Way("c", "m"),))
    assert ways.without({"a", "c"}) == Ways((Way("b", "m"),))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Has Space"},
        {"name": "a/b"},
        {"name": ""},
        {"base_url": ""},
        {"base_url": "127.0.0.1:8000"},
        {"max_concurrency": 0},
        {"timeout_s": 0},
        {"kind": "openia"},
        {"modles": ["x"]},
        {"api_key_env": "sk-1"},
    ],
)
def test_a_wrong_provider_is_refused(wrong: dict[str, object]) -> None:
    right = {"name": "local", "base_url": "http://127.0.0.1:8000/v1"}
    Provider.model_validate(right)
    with pytest.raises(ValidationError):
        Provider.model_validate(right | wrong)
