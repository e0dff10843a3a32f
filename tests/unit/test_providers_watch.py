"""When the routes of a changed file are taken over, and when not."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from batchord.errors import ConfigError
from batchord.providers_file import read_providers_file
from batchord.reload import Watch, follow

if TYPE_CHECKING:
    from pathlib import Path

    from batchord.routing import Routes

ONE = '[providers.one]\nkind = "simulated"\n'
TWO = f'{ONE}[providers.two]\nkind = "simulated"\napi_key_env = "TWO_KEY"\n'


class File:
    """A providers file whose time goes on with each writing, however coarse the file system's clock is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._time_s = 1_000_000
        self.write(ONE)

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        self._time_s += 1
        os.utime(self.path, (self._time_s, self._time_s))

    def watch(self, environ: dict[str, str] | None = None) -> Watch:
        """Watch it, and look until it is known to be as it was."""
        watch = Watch(self.path, read_providers_file(self.path).routes, environ)
        assert watch.look() is watch.look() is None
        return watch


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "providers.toml")


def names(routes: Routes | None) -> list[str] | None:
    return None if routes is None else list(routes.providers)


def test_a_changed_file_is_taken_over_once_it_rests(file: File) -> None:
    watch = file.watch()
    file.write(TWO)
    assert watch.look() is None
    assert names(watch.look()) == ["one", "two"]
    assert watch.look() is None


def test_a_file_that_is_still_being_written_is_left_alone(file: File) -> None:
    watch = file.watch()
    for text in ("[providers", "[providers.one]\n", TWO):
        file.write(text)
        assert watch.look() is None
    assert names(watch.look()) == ["one", "two"]


def test_a_change_between_the_reading_and_the_first_look_is_not_missed(file: File) -> None:
    watch = Watch(file.path, read_providers_file(file.path).routes)
    file.write(TWO)
    assert watch.look() is None
    assert names(watch.look()) == ["one", "two"]


@pytest.mark.parametrize("text", [ONE, f"# the same\n{ONE}"])
def test_a_file_that_says_what_it_said_changes_nothing(file: File, text: str) -> None:
    watch = file.watch()
    file.write(text)
    assert watch.look() is watch.look() is None


def test_the_order_of_the_providers_is_news(file: File) -> None:
    file.write(TWO)
    watch = file.watch()
    file.write('[providers.two]\nkind = "simulated"\napi_key_env = "TWO_KEY"\n' + ONE)
    assert watch.look() is None
    assert names(watch.look()) == ["two", "one"]


def test_a_file_that_cannot_be_used_is_refused_once_and_then_followed_on(file: File) -> None:
    watch = file.watch()
    file.write(f"{ONE}weight = 0\n")
    assert watch.look() is None
    with pytest.raises(ConfigError, match=r"providers\.toml:3: providers\.one\.weight: "):
        watch.look()
    assert watch.look() is None
    file.write(TWO)
    assert watch.look() is None
    assert names(watch.look()) == ["one", "two"]


def test_a_key_s_variable_that_is_not_set_is_a_refusal_where_requests_are_sent(file: File) -> None:
    sends, only_reads = file.watch({}), file.watch()
    file.write(TWO)
    assert sends.look() is only_reads.look() is None
    assert names(only_reads.look()) == ["one", "two"]
    with pytest.raises(ConfigError, match="the variable TWO_KEY is not set"):
        sends.look()


def test_a_file_that_is_gone_is_said_once_and_one_that_comes_back_is_followed(file: File) -> None:
    watch = file.watch()
    file.path.unlink()
    assert watch.look() is None
    with pytest.raises(ConfigError, match="cannot be read"):
        watch.look()
    assert watch.look() is None
    file.write(TWO)
    assert watch.look() is None
    assert names(watch.look()) == ["one", "two"]


async def test_whoever_follows_is_told_of_a_refusal_and_goes_on(file: File, caplog: pytest.LogCaptureFixture) -> None:
    watch, taken = file.watch(), asyncio.Queue[list[str]]()
    file.write("[providers.one")
    following = asyncio.create_task(follow(watch, lambda routes: taken.put_nowait(list(routes.providers))))
    async with asyncio.timeout(30):
        while "is refused; what was in force stays so" not in caplog.text:  # noqa: ASYNC110 (a log tells nobody)
            await asyncio.sleep(0.01)
        file.write(TWO)
        assert await taken.get() == ["one", "two"]
    following.cancel()
