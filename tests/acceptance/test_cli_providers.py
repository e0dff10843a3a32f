"""What a run says of a provider that does not answer, and a providers file that changes under a running fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import chat, run_command, wait_until
from tests.acceptance.fleet import Fleet
from tests.upstream import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.cli import Folder
    from tests.upstream import Upstream


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path) as fleet:
        yield fleet


def test_a_run_says_that_a_provider_has_not_answered_and_gives_up_as_told(folder: Folder, gone: str) -> None:
    folder.write_input([chat(number) for number in range(5)])
    folder.write_provider(gone)
    ended = folder.run("--give-up-after", "3")
    assert (ended.code, ended.out) == (1, "")
    assert "0/5 lines, 0 lines/s, 0 tokens in, 0 out; local has not answered yet: " in ended.err
    assert len(folder.error_lines) == 5


def test_a_pause_is_said_on_the_progress_line(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(3)])
    folder.write_provider(upstream.url)
    upstream.rules = [Rule(match="<0>", status=429, headers={"Retry-After": "3"}, times=1)]
    ended = folder.run()
    assert ended.code == 0, ended.err
    assert "; local asks to wait " in ended.err


def test_a_changed_file_is_taken_over_by_running_workers(fleet: Fleet, upstream: Upstream) -> None:
    one = {"base_url": upstream.url, "models": ["a*"]}
    two = {"base_url": upstream.url, "models": ["b*"], "max_concurrency": 1}
    fleet.write_providers(one=one)
    (worker,) = fleet.start()
    client = fleet.client()

    fleet.write_providers(one=one, two=two)
    wait_until(lambda: "is in force: one: a*; two: b*" in worker.log.read_text(), "the new provider is known")
    batch = client.submit([chat(number, model=f"{'ab'[number % 2]}-1") for number in range(6)])
    assert batch.wait(timeout_s=60) == "completed"
    assert batch.read().batch.request_counts.completed == 6

    (fleet.path / "providers.toml").write_text("[providers.one]\nweight = 0\n")
    wait_until(lambda: "is refused; what was in force stays so" in worker.log.read_text(), "the wrong file is refused")
    assert "providers.toml:2: providers.one.weight: " in worker.log.read_text()

    upstream.rules = [Rule(latency_s=0.6)]
    batch = client.submit([chat(number, model="b-1") for number in range(10, 16)])
    wait_until(lambda: upstream.count("<1") >= 2, "lines of the second provider are under way")
    fleet.write_providers(one=one)
    wait_until(lambda: "does not name any more: two" in worker.log.read_text(), "the warning")
    assert batch.wait(timeout_s=60) == "completed"
    assert batch.read().batch.request_counts.completed == 6

    fleet.write_providers(one={**one, "requests_per_minute": 2})
    wait_until(lambda: worker.log.read_text().count("is in force: one: a*.") == 2, "the rate is known")
    batch = client.submit([chat(number, model="a-1") for number in range(20, 30)])
    wait_until(lambda: upstream.count("<2") >= 1, "the first line goes at once, and the others wait")
    fleet.write_providers(one=one)
    assert batch.wait(timeout_s=60) == "completed"

    ended = run_command(["providers", "--json"], env=fleet.env)
    assert ended.code == 0, ended.err
    sent = {each["id"]: (each["workers"], each["sent"]) for each in json.loads(ended.out)["data"]}
    assert sent == {"one": (1, 13), "two": (1, 9)}
    assert worker.drain() == 0
