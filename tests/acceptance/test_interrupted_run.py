from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import Running, all_gone, chat, wait_until
from tests.upstream import Rule, Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.cli import Folder

LINES = 400
QUICK_RECOVERY = {"BATCHORD_VISIBILITY_TIMEOUT_S": "6", "BATCHORD_CLAIM_S": "4", "BATCHORD_STALL_S": "6"}


@pytest.fixture
def running(folder: Folder, upstream: Upstream) -> Iterator[Running]:
    """A run of which some lines are done, some are in flight and some have not begun."""
    folder.write_input([chat(number) for number in range(LINES)])
    folder.write_provider(upstream.url, max_concurrency=20)
    upstream.latency_s = 0.2
    running = Running(folder.run_arguments(), folder.path, env=QUICK_RECOVERY)
    with running:
        wait_until(lambda: upstream.count() >= 60, "some lines are sent")
        yield running


def assert_complete(folder: Folder) -> None:
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{number}" for number in range(LINES)]


def sent(upstream: Upstream) -> Counter[str]:
    return Counter(seen.body for seen in upstream.requests)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_finishes_what_is_in_flight_and_the_same_command_sends_only_the_rest(
    running: Running, folder: Folder, upstream: Upstream, number: signal.Signals
) -> None:
    children = running.children()
    running.signal(number)
    ended = running.end()
    assert ended.code == 130
    assert "Run the same command again" in ended.err
    assert all_gone(children)
    assert not folder.output.exists()
    assert 60 <= upstream.count() < LINES

    again = folder.run()

    assert again.code == 0, again.err
    assert_complete(folder)
    assert set(sent(upstream).values()) == {1}


def test_a_second_interrupt_ends_the_run_at_once_and_keeps_what_is_done(
    running: Running, folder: Folder, upstream: Upstream
) -> None:
    upstream.latency_s = 600
    children = running.children()
    first_long = upstream.count() + 20
    wait_until(lambda: upstream.in_flight == 20 and upstream.count() >= first_long, "long requests are in flight")
    running.signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in running.err, "the run says that it stops")
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    assert all_gone(children)
    upstream.latency_s = 0
    before = sent(upstream)
    assert folder.run().code == 0
    assert_complete(folder)
    assert sum((sent(upstream) - before).values()) <= LINES - len(before) + 20


def test_a_killed_worker_costs_at_most_its_lines_in_flight(
    running: Running, folder: Folder, upstream: Upstream
) -> None:
    running.child("-m workers").kill()
    ended = running.end()
    assert ended.code == 0, ended.err
    assert_complete(folder)
    twice = [body for body, times in sent(upstream).items() if times > 1]
    assert len(twice) <= 20
    assert max(sent(upstream).values()) <= 2


def test_a_killed_valkey_costs_nothing(running: Running, folder: Folder, upstream: Upstream) -> None:
    running.child("valkey-server").kill()
    ended = running.end()
    assert ended.code == 0, ended.err
    assert_complete(folder)
    assert set(sent(upstream).values()) == {1}


def test_a_killed_run_leaves_no_process_and_the_same_command_goes_on(
    running: Running, folder: Folder, upstream: Upstream
) -> None:
    children = running.children()
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    wait_until(lambda: all_gone(children), "its processes have drained and ended")

    assert folder.run().code == 0

    assert_complete(folder)
    assert set(sent(upstream).values()) == {1}


def test_everything_killed_at_once_loses_nothing(running: Running, folder: Folder, upstream: Upstream) -> None:
    children = running.children()
    for process in children:
        process.kill()
    running.signal(signal.SIGKILL)
    running.end()
    wait_until(lambda: all_gone(children), "everything is gone")

    assert folder.run().code == 0

    assert_complete(folder)
    assert sum(sent(upstream).values()) <= LINES + 20


def test_a_second_run_in_the_same_data_directory_is_refused(
    running: Running, folder: Folder, upstream: Upstream
) -> None:
    second = folder.run()
    assert second.code == 3
    assert str(running.process.pid) in second.err
    upstream.latency_s = 0
    assert running.end().code == 0
    assert_complete(folder)


def test_another_input_is_refused_while_the_first_is_unfinished(
    running: Running, folder: Folder, upstream: Upstream
) -> None:
    running.signal(signal.SIGINT)
    running.end()
    before = upstream.count()
    folder.write_input([chat(1)])
    ended = folder.run()
    assert ended.code == 3
    assert "unfinished run" in ended.err
    assert upstream.count() == before


def test_a_complete_run_sends_nothing_again(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(5)])
    folder.write_provider(upstream.url)
    upstream.rules = [Rule(match="<2>", status=400)]
    assert folder.run().code == 1
    folder.output.unlink()
    again = folder.run()
    assert again.code == 1
    assert "nothing is sent again" in again.err
    assert upstream.count() == 5
    assert [line["custom_id"] for line in folder.output_lines] == ["id-0", "id-1", "id-3", "id-4"]


def test_running_again_after_the_end_sends_only_what_was_never_answered(folder: Folder, upstream: Upstream) -> None:
    folder.write_input([chat(number) for number in range(30)])
    folder.write_provider(upstream.url, max_attempts=1)
    upstream.rules = [
        Rule(match="<4>", status=400),
        Rule(match="<8>", status=503),
        Rule(match="<9>", fault="reset"),
        Rule(match="<29>", status=408),
    ]
    assert folder.run().code == 1
    upstream.reset()

    again = folder.run()

    assert again.code == 1
    assert sorted(seen.body.split("<")[1].split(">")[0] for seen in upstream.requests) == ["29", "8", "9"]
    assert [line["custom_id"] for line in folder.error_lines] == ["id-4"]
    assert [line["custom_id"] for line in folder.output_lines] == [f"id-{n}" for n in range(30) if n != 4]
    assert "29 of 30 lines succeeded" in again.err
    assert "nothing is sent again" in folder.run().err
