from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from openai import AuthenticationError

from tests.acceptance.cli import Running, all_gone, chat, run_command, wait_until
from tests.acceptance.server import Server, jsonl
from tests.upstream import Upstream, run_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openai import OpenAI
    from openai.types import Batch

LINES = 120


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[Server, Upstream, list[str]]]:
    """A server that carries out two batches: some lines are done, some are in flight and some have not begun."""
    with run_upstream(latency_s=0.2) as upstream:
        server = Server(tmp_path, upstream_url=upstream.url)
        with server:
            batch_ids = [create(server.client(), text).id for text in ("a", "b")]
            wait_until(lambda: upstream.count() >= 40, "some lines are sent")
            yield server, upstream, batch_ids


def create(client: OpenAI, text: str, count: int = LINES) -> Batch:
    """Create a batch whose lines' texts are found in no other batch."""
    content = jsonl(chat(number, text=f"<{text}-{number}>") for number in range(count))
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def wait_for_end(client: OpenAI, batch_id: str) -> Batch:
    """Wait until a batch has completed."""
    wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", f"{batch_id} completes")
    return client.batches.retrieve(batch_id)


def assert_all_complete(server: Server, batch_ids: list[str]) -> None:
    """See every line of every batch answered, once."""
    client = server.client()
    for batch_id in batch_ids:
        batch = wait_for_end(client, batch_id)
        assert batch.request_counts is not None
        assert (batch.request_counts.completed, batch.request_counts.failed) == (LINES, 0)
        assert batch.output_file_id is not None
        lines = client.files.content(batch.output_file_id).text.splitlines()
        assert [json.loads(line)["custom_id"] for line in lines] == [f"id-{number}" for number in range(LINES)]


def sent(upstream: Upstream) -> Counter[str]:
    return Counter(seen.body for seen in upstream.requests)


def test_it_says_in_one_line_how_to_use_it_and_ends_without_a_trace(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        (line,) = server.running.out.splitlines()
        assert f'OpenAI(base_url="{server.base_url}", api_key="unused")' in line
        assert str(tmp_path / "data") in line
        redis_url = line.rpartition("Redis: ")[2]
        assert run_command(["health"], env={"BATCHORD_REDIS_URL": redis_url}).code == 0
        children = server.running.children()
        assert len(children) >= 3
        server.running.signal(signal.SIGINT)
        ended = server.running.end()
    assert ended.code == 0, ended.err
    assert "Stopping" in ended.err
    assert all_gone(children)
    assert_free(server)
    assert not list(tmp_path.rglob("*.sock"))


def assert_free(server: Server) -> None:
    """See that nobody serves its address any more."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


@pytest.mark.parametrize("command", ["serve", "api"])
def test_a_port_in_use_is_refused(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "BATCHORD_DATA_DIR": str(tmp_path)}
        ended = run_command([command, "--port", port], env=env)
    assert ended.code == 3
    assert f"Cannot serve on 127.0.0.1, port {port}" in ended.err
    assert ended.out == ""


def test_a_public_address_without_keys_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    env = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "BATCHORD_DATA_DIR": str(tmp_path)}
    ended = run_command(["serve", "--host", "0.0.0.0", "--port", "0"], env=env)  # noqa: S104 (refused)
    assert ended.code == 3
    assert "key" in ended.err
    assert not (tmp_path / "workers.log").exists()
    assert not (tmp_path / "api.log").exists()


def test_without_a_provider_it_says_what_to_set(tmp_path: Path) -> None:
    ended = run_command(["serve", "--data-dir", str(tmp_path)])
    assert ended.code == 3
    assert "OPENAI_BASE_URL" in ended.err


def test_with_keys_only_their_owners_are_served(tmp_path: Path) -> None:
    with Server(tmp_path, keys="team:sk-right") as server:
        assert "sk-right" not in server.running.out
        assert server.client().models.list() is not None
        with pytest.raises(AuthenticationError):
            server.client(api_key="sk-wrong").models.list()


@pytest.mark.parametrize("name", ["-m app", "-m workers", "valkey-server"])
def test_a_killed_process_is_started_again_and_the_batches_complete(
    busy: tuple[Server, Upstream, list[str]], name: str
) -> None:
    server, upstream, batch_ids = busy
    killed = server.running.child(name)
    killed.kill()
    wait_until(lambda: all_gone([killed]), "it is gone")
    assert_all_complete(server, batch_ids)
    assert server.running.child(name).pid != killed.pid
    assert max(sent(upstream).values()) <= 2


def test_requests_wait_while_a_killed_api_is_started_again(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.running.child("-m app").kill()
        assert server.client(max_retries=0).models.list() is not None


def test_a_server_told_to_end_finishes_what_is_in_flight_and_goes_on_when_started_again(
    busy: tuple[Server, Upstream, list[str]],
) -> None:
    server, upstream, batch_ids = busy
    children = server.running.children()
    server.running.signal(signal.SIGTERM)
    ended = server.running.end()
    assert ended.code == 0, ended.err
    assert all_gone(children)
    assert 40 <= upstream.count() < 2 * LINES
    with server:
        assert_all_complete(server, batch_ids)
    assert set(sent(upstream).values()) == {1}


def test_a_request_in_flight_is_answered_by_a_server_that_ends(tmp_path: Path) -> None:
    with Server(tmp_path) as server, contextlib.closing(server.connection()) as connection:
        connection.putrequest("POST", "/v1/batches")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", "2")
        connection.endheaders(b"{")
        server.client().models.list()  # connections are taken in their order, so by now the first one is
        server.running.signal(signal.SIGTERM)
        wait_until(lambda: "Stopping" in server.running.err, "it stops")
        connection.send(b"}")
        assert connection.getresponse().status == 400
        assert server.running.end().code == 0


def test_a_second_interrupt_ends_the_server_at_once(busy: tuple[Server, Upstream, list[str]]) -> None:
    server, upstream, batch_ids = busy
    upstream.latency_s = 600
    first_long = upstream.count() + 20
    wait_until(lambda: upstream.in_flight == 20 and upstream.count() >= first_long, "long requests are in flight")
    children = server.running.children()
    server.running.signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in server.running.err, "it says that it stops")
    server.running.signal(signal.SIGINT)
    assert server.running.end().code == 130
    assert all_gone(children)
    upstream.latency_s = 0
    with server:
        assert_all_complete(server, batch_ids)


def test_a_server_started_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does for what it starts
    try:
        with Server(tmp_path) as server:
            server.running.signal(signal.SIGHUP)
            server.running.signal(signal.SIGTERM)
            assert server.running.end().code == 0  # asked twice to end, it would have ended at once, with 130
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_killed_server_leaves_no_process_and_goes_on_when_started_again(
    busy: tuple[Server, Upstream, list[str]],
) -> None:
    server, upstream, batch_ids = busy
    children = server.running.children()
    server.running.signal(signal.SIGKILL)
    assert server.running.end().code == -signal.SIGKILL
    wait_until(lambda: all_gone(children), "its processes have drained and ended")
    with server:
        assert_all_complete(server, batch_ids)
    assert set(sent(upstream).values()) == {1}


def test_everything_killed_at_once_loses_nothing(busy: tuple[Server, Upstream, list[str]]) -> None:
    server, upstream, batch_ids = busy
    for process in server.running.children():
        process.kill()
    server.running.signal(signal.SIGKILL)
    server.running.end()
    with server:
        assert_all_complete(server, batch_ids)
    assert sum(sent(upstream).values()) <= 2 * LINES + 2 * 20


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        ended = run_command(server.arguments)
        assert ended.code == 3
        assert str(server.running.process.pid) in ended.err


def test_the_api_alone_serves_what_a_fleet_elsewhere_carries_out(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        env = {
            "BATCHORD_REDIS_URL": f"unix://{server.folder / 'data' / 'valkey.sock'}",
            "BATCHORD_DATA_DIR": str(server.folder / "data"),
        }
        (tmp_path / "api").mkdir()
        with Running(["api", "--port", "0"], tmp_path / "api", env) as alone:
            wait_until(lambda: " on http" in alone.err, "it says where it listens")
            address = alone.err.split("Starting the API on ")[1].split()[0]
            batch = create(server.client(base_url=f"{address}/v1"), "alone", count=3)
            assert wait_for_end(server.client(), batch.id).output_file_id is not None
            alone.signal(signal.SIGTERM)
            assert alone.end().code == 0
