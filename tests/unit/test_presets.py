from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from batchord.contract import ENDPOINTS
from batchord.presets import PRESETS, with_preset
from batchord.providers_file import parse_providers
from batchord.routing import Provider, Routes

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
LOCAL = {"ollama", "vllm"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_alone_makes_a_usable_provider(preset: str) -> None:
    provider = Provider(name="p", preset=preset)
    assert provider.base_url.startswith("http://127.0.0.1:" if preset in LOCAL else "https://")
    assert bool(provider.api_key_env) == (preset not in LOCAL)
    assert set(provider.endpoints) <= {*ENDPOINTS, "/v1/messages"}
    assert list(provider.endpoints) == sorted(provider.endpoints)


@pytest.mark.parametrize(
    ("stated", "is_so"),
    [
        ({"base_url": "http://h/v1"}, ("http://h/v1", "GROQ_API_KEY", "daily_requests")),
        ({"api_key_env": "OTHER"}, ("https://api.groq.com/openai/v1", "OTHER", "daily_requests")),
        ({"api_key_env": ""}, ("https://api.groq.com/openai/v1", "", "daily_requests")),
        ({"rate_headers": "none"}, ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "none")),
    ],
)
def test_what_is_stated_wins_over_the_preset(stated: dict[str, object], is_so: tuple[str, ...]) -> None:
    provider = Provider.model_validate({"name": "p", "preset": "groq", **stated})
    assert (provider.base_url, provider.api_key_env, provider.rate_headers) == is_so


def test_endpoints_stated_as_none_are_all() -> None:
    assert Provider(name="p", preset="groq", endpoints=()).endpoints == ()


def test_an_unknown_preset_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'grok'; there are anthropic, .*, xai") as caught:
        Provider(name="p", preset="grok")
    assert all(preset in str(caught.value) for preset in PRESETS)


def test_without_a_preset_nothing_is_added_and_what_was_given_is_not_touched() -> None:
    table = {"name": "p", "preset": "", "base_url": "http://h/v1"}
    assert with_preset(table) == table
    with_preset(table | {"preset": "xai"})
    assert table == {"name": "p", "preset": "", "base_url": "http://h/v1"}


def test_a_server_of_anthropics_kind_tells_its_limits_as_anthropic_does_unless_stated_otherwise() -> None:
    assert Provider(name="p", kind="anthropic", base_url="http://h").rate_headers == "anthropic"
    assert Provider(name="p", kind="anthropic", base_url="http://h", rate_headers="none").rate_headers == "none"


def test_presets_side_by_side_take_each_their_own_models() -> None:
    routes = Routes([Provider(name=name, preset=name) for name in ("anthropic", "deepseek", "gemini", "xai", "ollama")])
    models = ("claude-x-1", "deepseek-chat", "gemini-3-pro", "grok-4", "llama3:8b")
    assert [route.provider for model in models if (route := routes.route(model))] == list(routes.providers)


def test_the_docs_example_is_a_file_without_problems() -> None:
    example = PAGE.partition("```toml\n")[2].partition("```")[0]
    routes, notes = parse_providers(example, "providers.toml")
    assert (list(routes.providers), notes) == (["local", "claude", "groq", "sim"], [])


def test_the_docs_tell_every_preset_as_it_is() -> None:
    told = re.findall(
        r"^\| `(\w+)` \| `(https?://\S+)` \| (?:`(\w+)`)? *\| (.*?) *\| (.*?) *\| (.*?) *\|", PAGE, re.MULTILINE
    )
    said = {
        name: (base_url, key, _quoted(models), _quoted(headers), _quoted(endpoints))
        for name, base_url, key, models, headers, endpoints in told
    }
    assert said == {name: _facts(Provider(name="p", preset=name)) for name in PRESETS}


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`(\S+)`", cell)


def _facts(provider: Provider) -> tuple[str, str, list[str], list[str], list[str]]:
    models = [] if provider.models == ("*",) else list(provider.models)
    endpoints = [endpoint.removeprefix("/v1/") for endpoint in provider.endpoints]
    return provider.base_url, provider.api_key_env, models, [provider.rate_headers], endpoints


def test_the_docs_name_every_field_and_its_default() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]+)` )?\|", PAGE.partition("## Presets")[0], re.MULTILINE))
    assert sorted([*told, "name"]) == sorted(Provider.model_fields)
    for name, said in told.items():
        assert said == _shown(Provider.model_fields[name].get_default(call_default_factory=True)), name


def _shown(default: object) -> str:
    return "" if default in (None, "", (), {}) else json.dumps(default)
