from __future__ import annotations

import re
from pathlib import Path

import pytest

from batchord.errors import ConfigError
from batchord.settings import Settings, read_settings


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
