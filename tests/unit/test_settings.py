from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchord.errors import ConfigError
from batchord.settings import Settings, load_routes, read_settings, require_keys


def providers_file(folder: Path, text: str) -> Path:
    path = folder / "providers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHORD_REDIS_URL", "redis://elsewhere:6380/2")
    monkeypatch.setenv("BATCHORD_WINDOW_LINES", "17")
    settings = read_settings()
    assert (settings.redis_url, settings.window_lines) == ("redis://elsewhere:6380/2", 17)


def test_a_wrong_variable_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHORD_WINDOW_LINES", "s3cret")
    with pytest.raises(ConfigError, match="BATCHORD_WINDOW_LINES") as caught:
        read_settings()
    assert "s3cret" not in str(caught.value)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(f"BATCHORD_{field.upper()}", "")
    assert read_settings() == Settings.model_construct()


def test_the_docs_name_every_setting_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `BATCHORD_(\w+)` \| (?:`(\S+)` )?\|", text, re.MULTILINE)
    assert sorted(name.lower() for name, _ in told) == sorted(Settings.model_fields)
    for name, value in told:
        monkeypatch.setenv(f"BATCHORD_{name}", value)
        assert getattr(read_settings(), name.lower()) == Settings.model_fields[name.lower()].default, name


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("redis_url", "127.0.0.1:6379", "BATCHORD_REDIS_URL: not the URL of a Redis; write for example redis://"),
        ("redis_url", "http://h/0", "BATCHORD_REDIS_URL: not the URL of a Redis"),
        ("redis_url", "redis://h:s3cret", "BATCHORD_REDIS_URL: not the URL of a Redis"),
        ("redis_url", "redis://[h", "BATCHORD_REDIS_URL: not the URL of a Redis"),
        ("completion_windows", "", "BATCHORD_COMPLETION_WINDOWS: there must be one at least"),
        ("completion_windows", "24h,soon", "BATCHORD_COMPLETION_WINDOWS: completion_window 'soon' is not a number of"),
        ("log_level", "loud", "BATCHORD_LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_what_can(field: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(**{field: value})
    assert str(caught.value).startswith(said)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "redis_url",
    ["redis://h", "rediss://:p@h:6380/2", "unix:///a%20b/valkey.sock?db=1", "redis+socket:///a?virtual_host=1"],
)
def test_every_kind_of_redis_url_is_taken_as_it_is(redis_url: str) -> None:
    assert read_settings(redis_url=redis_url).redis_url == redis_url


def test_the_log_level_may_be_written_in_lower_case() -> None:
    assert read_settings(log_level="debug").log_level == "DEBUG"


def test_secrets_in_urls_are_not_shown() -> None:
    settings = read_settings(redis_url="redis://:hunter2@h/0", storage_url="s3://key:hunter3@b")
    assert "hunter" not in repr(settings)


def test_the_bytes_are_in_the_data_directory_unless_said_otherwise(tmp_path: Path) -> None:
    assert read_settings(data_dir=tmp_path).blobs_url == (tmp_path.resolve() / "storage").as_uri()
    assert read_settings(data_dir=tmp_path, storage_url="s3://b/p").blobs_url == "s3://b/p"


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
    routes = load_routes(read_settings(providers=None), environ)
    provider = routes.providers["openai"]
    assert (provider.base_url, provider.api_key_env) == (base_url, api_key_env)
    assert routes.route("any-model") is not None


def test_with_no_provider_the_error_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"--providers FILE.*OPENAI_BASE_URL.*OPENAI_API_KEY"):
        load_routes(read_settings(providers=None), {})


def test_a_providers_file_is_read_in_its_order(tmp_path: Path) -> None:
    path = providers_file(tmp_path, '[providers.b]\nkind="simulated"\n[providers.a]\nbase_url="http://h/v1"\n')
    assert list(load_routes(read_settings(providers=path), {}).providers) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "names no provider"),
        ("[providers]\n", "names no provider"),
        ("[providers.a", "not valid TOML"),
        ("[providers]\na = 1\n", r"providers\.a is not a table"),
        ("[providers.a]\n", r"providers\.a: base_url"),
        ('[providers.a]\nbase_url="h"\n', r"providers\.a\.base_url: must start with http"),
        ('[providers.a]\nbase_url="http://h"\nmax_concurency=3\n', r"a\.max_concurency: There is no such setting"),
        ('[providers.a]\nbase_url="http://h"\nmodels="m"\n', r"a\.models: Input should be a list"),
        ('[providers.a]\nbase_url="http://h"\nprices={m=1}\n', r"a\.prices\.m: Input should be a table"),
        ('[providers.a]\nbase_url="http://h"\nheaders="h"\n', r"a\.headers: Input should be a table"),
        ('[providers.A]\nbase_url="http://h"\n', r"providers\.A\.name"),
    ],
)
def test_a_wrong_providers_file_is_refused_by_file_and_field(tmp_path: Path, text: str, named: str) -> None:
    path = providers_file(tmp_path, text)
    with pytest.raises(ConfigError, match=named) as caught:
        load_routes(read_settings(providers=path), {})
    assert str(path) in str(caught.value)


def test_a_providers_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read"):
        load_routes(read_settings(providers=tmp_path / "gone.toml"), {})


@pytest.mark.parametrize("field", ["api_key", "api_key_env"])
def test_a_key_written_into_the_file_is_refused_and_not_shown(tmp_path: Path, field: str) -> None:
    path = providers_file(tmp_path, f'[providers.a]\nbase_url="http://h"\n{field}="sk-secret"\n')
    with pytest.raises(ConfigError, match="api_key") as caught:
        load_routes(read_settings(providers=path), {})
    assert "sk-secret" not in str(caught.value)


def test_the_variable_of_a_key_must_be_set(tmp_path: Path) -> None:
    path = providers_file(tmp_path, '[providers.a]\nbase_url="http://h"\napi_key_env="A_KEY"\n')
    routes = load_routes(read_settings(providers=path), {})
    require_keys(routes, {"A_KEY": "x"})
    with pytest.raises(ConfigError, match=r"a: the variable A_KEY"):
        require_keys(routes, {"A_KEY": ""})
