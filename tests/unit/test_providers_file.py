"""What is said of a providers file: which file and line, which field, what is wrong and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchord.errors import ConfigError
from batchord.providers_file import load_routes, parse_providers
from batchord.settings import read_settings

URL = 'base_url = "http://h"\n'


def providers_file(folder: Path, text: str) -> Path:
    path = folder / "providers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_providers(text, "p.toml", environ)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("environ", "base_url", "api_key_env"),
    [
        ({"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/"}, "http://127.0.0.1:8000/v1", ""),
        ({"OPENAI_API_KEY": "sk-1"}, "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_KEY": "sk-1"}, "http://h/v1", "OPENAI_API_KEY"),
    ],
)
def test_the_usual_variables_make_one_provider_of_any_model(
    environ: dict[str, str], base_url: str, api_key_env: str
) -> None:
    routes = load_routes(read_settings(providers=None), environ, needs_keys=True)
    provider = routes.providers["openai"]
    assert (provider.base_url, provider.api_key_env) == (base_url, api_key_env)
    assert routes.route("any-model") is not None


def test_a_usual_variable_that_makes_no_sense_is_named() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_BASE_URL: must start with http"):
        load_routes(read_settings(providers=None), {"OPENAI_BASE_URL": "127.0.0.1:8000"})


def test_with_no_provider_the_error_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"--providers FILE.*OPENAI_BASE_URL.*OPENAI_API_KEY"):
        load_routes(read_settings(providers=None), {})


def test_a_providers_file_is_read_in_its_order(tmp_path: Path) -> None:
    path = providers_file(tmp_path, '[providers.b]\nkind="simulated"\n[providers.a]\nbase_url="http://h/v1"\n')
    assert list(load_routes(read_settings(providers=path), {}).providers) == ["b", "a"]


def test_a_problem_in_a_file_is_said_with_the_file_s_path(tmp_path: Path) -> None:
    path = providers_file(tmp_path, "[providers.a]\nbase_url = 'h'\n")
    with pytest.raises(ConfigError) as caught:
        load_routes(read_settings(providers=path), {})
    assert str(caught.value).startswith(f"{path}:2: providers.a.base_url: must start with http")


def test_a_providers_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        load_routes(read_settings(providers=tmp_path / "gone.toml"), {})


def test_a_providers_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML"):
        load_routes(read_settings(providers=tmp_path / "binary.toml"), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[providers.a", "p.toml:1: not valid TOML: Expected ']' at the end of a table declaration (at the end)"),
        ("[providers.a]\n\nx = [1,", "p.toml:3: not valid TOML: "),
        ("\n\nx == 1\n", "p.toml:3: not valid TOML: Invalid value (column 4)"),
        ("[providers]\na = 1\n", "p.toml:2: providers.a: is not a table; write [providers.a]."),
        ("[providers.a]\n", "p.toml:1: providers.a.base_url: missing; say for example base_url = "),
        ('\n[providers.a]\nbase_url="h"\n', "p.toml:3: providers.a.base_url: must start with http"),
        (
            f"[providers.a]\n{URL}max_concurency=3",
            "p.toml:3: providers.a.max_concurency: There is no such setting; did",
        ),
        ('[providers.a]\nbase_url="http://"', "p.toml:2: providers.a.base_url: leads nowhere; write for example http"),
        ('[providers.a]\nbase_url="http://h:p"', "p.toml:2: providers.a.base_url: leads nowhere"),
        ('[providers.a]\nbase_url="http://[h"', "p.toml:2: providers.a.base_url: leads nowhere"),
        (
            '[providers.a]\npreset="grok"',
            "p.toml:2: providers.a.preset: there is none of the name 'grok'; there are an",
        ),
        (f"[providers.a]\n{URL}zzz=3", "p.toml:3: providers.a.zzz: There is no such setting."),
        (f'[providers.a]\n{URL}models="m"', "p.toml:3: providers.a.models: Input should be a list"),
        (f'[providers.a]\n{URL}models=[\n"a",\n1]', "p.toml:5: providers.a.models.1: Input should be a valid string"),
        (f'[providers.a]\n{URL}models=["a", ""]', "p.toml:3: providers.a.models.1: the empty glob matches no model"),
        (f"[providers.a]\n{URL}prices={{m=1}}", "p.toml:3: providers.a.prices.m: Input should be a table"),
        (f'[providers.a]\n{URL}headers="h"', "p.toml:3: providers.a.headers: Input should be a table"),
        (f'[providers.a]\n{URL}name="b"', "p.toml:3: providers.a.name: a provider's name is its table's"),
        (f"[providers.A]\n{URL}", "p.toml:1: providers.A.name: must be of lower-case letters"),
        (
            f"[providers.a]\n{URL}requests_per_minute = 0",
            "p.toml:3: providers.a.requests_per_minute: Input should be gr",
        ),
        (f'[providers.a]\n{URL}endpoints=["chat"]', "p.toml:3: providers.a.endpoints.0: there are /v1/responses, /v1/"),
        (f'[providers.a]\n{URL}headers={{"A B"="c"}}', "p.toml:3: providers.a.headers.A B: is batchord's own, or can"),
        (f'[providers.a]\n{URL}headers={{A="b\\n"}}', "p.toml:3: providers.a.headers.A: is batchord's own, or cannot"),
        (
            '[providers.a]\nbase_url="http://h/v1/chat/completions/"',
            "p.toml:2: providers.a.base_url: leave out /chat/completions, which batchord appends.",
        ),
        (
            '[providers.a]\nkind="anthropic"\nbase_url="http://h/v1/messages"',
            "p.toml:3: providers.a.base_url: leave out /v1/messages, which batchord appends.",
        ),
        ('[providers.a]\nkind="anthropic"\nbase_url="http://h/v1"', "p.toml:3: providers.a.base_url: leave out /v1,"),
        (f"[providers.a]\n{URL}weight = 0", "p.toml:3: providers.a.weight: Input should be greater than 0"),
        (
            f'[providers.a]\n{URL}[providers.a.limits."gpt-*"]\ntoken_per_minute = 1',
            "p.toml:4: providers.a.limits.gpt-*.token_per_minute: There is no such setting; did you mean tokens_per_mi",
        ),
        (f'[providers.a]\n{URL}[providers.a.limits.""]\n', "p.toml:3: providers.a.limits.: the empty glob"),
        (f'[providers.a]\n{URL}fallback = ["b"]', "p.toml:3: providers.a.fallback.0: this file has no provider b."),
        (f'[providers.a]\n{URL}fallback = ["a"]', "p.toml:3: providers.a.fallback: the fallbacks go round in a circle"),
        (
            f"[provider.a]\n[providers.a]\n{URL}",
            "p.toml:1: provider: There is no such setting; did you mean providers?",
        ),
    ],
)
def test_a_problem_is_said_with_its_line_and_field(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(said)


@pytest.mark.parametrize("text", ["", "[providers]\n", "providers = 1\n", "[provider.a]\n"])
def test_a_file_without_a_provider_is_refused_with_what_it_needs(text: str) -> None:
    (problem,) = problems(text)
    assert "names no provider; it needs a table such as [providers.local]" in problem


def test_all_problems_are_said_at_once_in_the_order_of_the_file() -> None:
    text = f'[providers.b]\n{URL}weight = "x"\nfoo = 1\n[providers.a]\n{URL}fallback = ["c"]\napi_key_env = "KEY"\n'
    assert [problem.partition(": ")[0] for problem in problems(text, {})] == [
        "p.toml:3",
        "p.toml:4",
        "p.toml:7",
        "p.toml:8",
    ]


@pytest.mark.parametrize("page", ["README.md", "docs/providers.md"])
def test_the_file_that_the_docs_show_is_right_and_leaves_no_doubt(page: str) -> None:
    shown = (Path(__file__).parents[2] / page).read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    keys = dict.fromkeys(("CLOUD_API_KEY", "GROQ_API_KEY", "ANTHROPIC_API_KEY"), "k")
    assert len(parse_providers(shown, page, keys).routes.providers) >= 4
    assert parse_providers(shown, page, keys).notes == []


def test_a_fallback_to_a_provider_that_has_problems_of_its_own_is_no_second_problem() -> None:
    assert len(problems(f'[providers.a]\n{URL}fallback = ["b"]\n[providers.b]\n')) == 1


def test_a_circle_of_fallbacks_is_named_once() -> None:
    tables = "".join(f'[providers.{one}]\n{URL}fallback = ["{other}"]\n' for one, other in ("ab", "bc", "ca", "da"))
    (problem,) = problems(tables)
    assert problem.endswith("circle: a -> b -> c -> a; take one of them out.")


@pytest.mark.parametrize("field", ["api_key", "api_key_env"])
def test_a_key_written_into_the_file_is_refused_and_not_shown(field: str) -> None:
    (problem,) = problems(f'[providers.a]\n{URL}{field}="sk-secret"\n')
    assert "api_key" in problem
    assert "sk-secret" not in problem


def test_the_variable_of_a_key_must_be_set_where_requests_are_sent() -> None:
    text = f'[providers.a]\n{URL}api_key_env="A_KEY"\n'
    assert parse_providers(text, "p.toml").routes.providers
    assert parse_providers(text, "p.toml", {"A_KEY": "x"}).routes.providers
    said = ["p.toml:3: providers.a.api_key_env: the variable A_KEY is not set; it should hold the API key."]
    assert problems(text, {"A_KEY": ""}) == problems(text, {}) == said


def test_anthropics_own_variable_need_not_be_named() -> None:
    text = '[providers.a]\nkind = "anthropic"\n'
    assert parse_providers(text, "p.toml", {"ANTHROPIC_API_KEY": "x"}).routes.providers
    assert problems(text, {})[0].startswith("p.toml:1: providers.a.api_key_env: the variable ANTHROPIC_API_KEY is not")
    assert parse_providers(f"{text}{URL}", "p.toml", {}).routes.providers


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    (problem,) = problems(f'[providers.a]\n{URL}api_key_env="A_KEY"\n', {"A_KEY": "s3\ncret"})
    assert problem == "p.toml:3: providers.a.api_key_env: what the variable A_KEY holds cannot be an API key."


def notes(text: str) -> list[str]:
    return parse_providers(text, "p.toml").notes


@pytest.mark.parametrize(
    ("weights", "noted"), [(("", ""), True), (("weight=1", ""), True), (("weight=1", "weight=2"), False)]
)
def test_two_providers_of_one_glob_are_noted_unless_both_have_a_weight(weights: tuple[str, str], noted: bool) -> None:
    text = "".join(f'[providers.{n}]\n{URL}models=["m"]\n{w}\n' for n, w in zip("ab", weights, strict=True))
    said = ['p.toml:7: providers.b.models.0: lines for "m" go to a, which stands before it; to share them, give both a']
    assert [note[: len(said[0])] for note in notes(text)] == (said if noted else [])


@pytest.mark.parametrize(
    ("first", "second", "noted"),
    [("*", "gpt-4", True), ("gpt-*", "gpt-4*", True), ("gpt-4", "gpt-*", False), ("gpt-?", "gpt-*", False)],
)
def test_a_glob_is_noted_exactly_if_an_earlier_one_surely_takes_all_of_its_models(
    first: str, second: str, noted: bool
) -> None:
    text = f'[providers.a]\n{URL}models=["{first}"]\n[providers.b]\n{URL}models=["{second}"]\n'
    assert bool(notes(text)) is noted


def test_a_fallback_that_no_glob_leads_to_is_as_it_should_be() -> None:
    assert notes(f'[providers.a]\n{URL}fallback=["b"]\n[providers.b]\n{URL}') == []


def test_limits_that_an_earlier_glob_hides_are_noted() -> None:
    text = f'[providers.a]\n{URL}[providers.a.limits]\n"*" = {{}}\n"gpt-*" = {{}}\n'
    assert notes(text)[0].startswith('p.toml:5: providers.a.limits.gpt-*: never used: "*", which stands before it')
