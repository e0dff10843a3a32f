from __future__ import annotations

import pytest
from pydantic import ValidationError

from batchord.routing import Provider, Route, Routes

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
        ("sim:anything", Route("sim", "anything")),
        ("sim:", None),
        ("sim:local:llama-3", Route("sim", "local:llama-3")),
        ("other:llama-3", None),
        ("llama-3:8b", Route("local", "llama-3:8b")),
        ("", None),
    ],
)
def test_a_model_goes_to_the_provider_it_names_or_the_first_whose_glob_matches(model: str, route: Route | None) -> None:
    assert ROUTES.route(model) == route


def test_the_patterns_say_what_is_configured() -> None:
    assert ROUTES.patterns == ["local: llama-*, qwen?", "cloud: gpt-*", "sim: llama-tiny, exact"]


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
