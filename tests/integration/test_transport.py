from __future__ import annotations

import json
import os
import random
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from kombu import Connection

from batchord.embedded import EmbeddedValkey
from batchord.errors import ConfigError
from tests.integration.transport_worker import create_app
from workers.transport import Transport, install
from workers.transport_unacked import Unacked
from workers.transport_url import broker_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


class Server(EmbeddedValkey):
    """The embedded Valkey, and a client to look into it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.client = redis.Redis(unix_socket_path=str(self.socket_path))

    def __exit__(self, *_: object) -> None:
        self.client.close()
        super().__exit__()

    def size(self, key: str, command: str = "LLEN") -> int:
        return int(self.client.execute_command(command, key))  # type: ignore[no-untyped-call]  # redis leaves it so

    @property
    def unacked(self) -> int:
        return self.size("unacked", "HLEN")

    def is_empty_of(self, queue: str) -> bool:
        """Whether no message is queued or unacknowledged, at one moment."""
        with self.client.pipeline(transaction=True) as both:
            return both.llen(queue).hlen("unacked").execute() == [0, 0]


class Fleet:
    """Workers as processes, and a producer."""

    def __init__(self, server: Server, directory: Path, **config: Any) -> None:
        self.directory = directory
        self.server = server
        self.runs_path = directory / "runs"
        self.config = {
            "redis_url": server.url,
            "runs": str(self.runs_path),
            "slots": {"work": 100},
            "visibility_timeout_s": 60,
            "drain_timeout_s": 30,
            **config,
        }
        self.app: Celery = create_app(self.config)
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self, level: str = "INFO") -> subprocess.Popen[bytes]:
        config_path = self.directory / "config.json"
        config_path.write_text(json.dumps(self.config), encoding="utf-8")
        name = f"w{len(self.workers)}"
        log_path = self.directory / f"{name}.log"
        program = str(Path(__file__).with_name("transport_worker.py"))
        with log_path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, program, str(config_path), "-n", f"{name}@test", "-l", level],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.workers.append(worker)
        wait_until(lambda: b"[tasks]" in log_path.read_bytes() or worker.poll() is not None, "the worker starts")
        assert worker.poll() is None, log_path.read_text()
        return worker

    def publish(self, keys: list[str], seconds: float = 0, queue: str = "work") -> None:
        with self.app.producer_pool.acquire(block=True) as producer, producer.batch(500):
            for key in keys:
                self.app.send_task("note", (key, seconds), queue=queue, producer=producer)

    def set_slots(self, queue: str, slots: int, *, by: str) -> None:
        self.app.send_task("set_slots", (queue, slots), queue=by)

    @property
    def runs(self) -> Counter[str]:
        """How often each task began, by key."""
        return Counter(self.runs_path.read_text(encoding="utf-8").split())

    def wait_for_runs(self, count: int) -> None:
        wait_until(lambda: len(self.runs) >= count, f"{count} tasks run")
        assert len(self.runs) == count

    def wait_until_done(self, queue: str = "work") -> None:
        wait_until(lambda: self.server.is_empty_of(queue), "all is done")

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait(10)
        self.app.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


@pytest.fixture
def fleet(server: Server, tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    with ExitStack() as stack:

        def create(**config: Any) -> Fleet:
            fleet = Fleet(server, tmp_path, **config)
            stack.callback(fleet.close)
            return fleet

        yield create


def keys(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def known_to_server(server: Server) -> set[str]:
    queued: list[bytes] = server.client.lrange("work", 0, -1)  # type: ignore[assignment]  # sync and async as one
    unacked: list[bytes] = server.client.hvals("unacked")  # type: ignore[assignment]  # the same
    messages = [json.loads(raw) for raw in queued] + [json.loads(raw)[0] for raw in unacked]
    return {json.loads(message["body"])[0][0] for message in messages}


def test_no_message_is_lost_when_busy_workers_are_killed(fleet: Callable[..., Fleet], server: Server) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    kills = 8
    published = keys(1000 * kills)
    group = fleet(visibility_timeout_s=2)
    group.publish(published)
    for kill in range(kills):
        worker = group.start_worker()
        enough = len(group.runs) + chance.randrange(1, 900)
        wait_until(lambda enough=enough: len(group.runs) >= enough, f"worker {kill} is busy")
        worker.kill()
        worker.wait(10)
        assert set(published) <= set(group.runs) | known_to_server(server)
    group.start_worker()
    group.wait_until_done()
    assert set(group.runs) == set(published)


def test_a_task_longer_than_the_visibility_timeout_runs_once(fleet: Callable[..., Fleet]) -> None:
    group = fleet(visibility_timeout_s=2, slots={"work": 20})
    group.start_worker()
    group.start_worker()
    group.publish(keys(30), seconds=6)
    group.wait_for_runs(30)
    group.wait_until_done()
    assert set(group.runs.values()) == {1}


def test_tasks_in_flight_when_their_connection_is_killed_run_once(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    worker = group.start_worker()
    group.publish(keys(100), seconds=5)
    group.wait_for_runs(100)
    server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    group.publish(["after"])
    wait_until(lambda: "after" in group.runs, "the worker is back")
    group.wait_until_done()
    assert set(group.runs.values()) == {1}
    assert worker.poll() is None


def test_tasks_in_flight_when_the_server_restarts_run_once(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    worker = group.start_worker()
    group.publish(keys(100), seconds=8)
    group.wait_for_runs(100)
    server.stop()
    server.start()
    group.publish(["after"])
    wait_until(lambda: "after" in group.runs, "the worker is back")
    group.wait_until_done()
    assert set(group.runs.values()) == {1}
    assert worker.poll() is None


def test_a_flushed_script_cache_stops_nothing(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    group.start_worker()
    for round_ in range(3):
        group.publish(keys(10, prefix=f"r{round_}-"))
        group.wait_for_runs(10 * (round_ + 1))
        server.client.script_flush()
    group.wait_until_done()
    assert set(group.runs.values()) == {1}


def test_a_full_server_loses_nothing_and_keeps_what_is_in_flight(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 20}, visibility_timeout_s=2)
    group.start_worker()
    group.publish(keys(60), seconds=4)
    group.wait_for_runs(20)
    server.client.config_set("maxmemory", "1")
    group.wait_until_done()
    assert group.runs == Counter(keys(60))


def test_a_queue_with_full_slots_does_not_hold_another(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"slow": 5, "fast": 5})
    group.publish(keys(20, prefix="slow"), seconds=120, queue="slow")
    group.start_worker()
    group.publish(keys(300, prefix="fast"), seconds=0.01, queue="fast")
    wait_until(lambda: sum(key.startswith("fast") for key in group.runs) == 300, "the fast queue is done")
    assert sum(key.startswith("slow") for key in group.runs) == 5
    assert server.size("slow") == 15


def test_slots_changed_at_run_time_are_obeyed(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 0, "control": 10})
    group.start_worker()
    group.publish(keys(10), seconds=120)
    group.publish(["first"], queue="control")
    wait_until(lambda: "first" in group.runs, "the worker works")
    assert server.size("work") == 10
    group.set_slots("work", 3, by="control")
    group.wait_for_runs(1 + 3)
    group.set_slots("work", 7, by="control")
    group.wait_for_runs(1 + 7)
    group.set_slots("work", 0, by="control")
    group.publish(["last"], queue="control")
    wait_until(lambda: "last" in group.runs, "the worker still works")
    assert server.size("work") == 3


@pytest.mark.parametrize("way", ["SIGTERM", "SIGQUIT", "remote shutdown"])
def test_a_stopped_worker_gives_back_what_is_unfinished(way: str, fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 20, "quick": 20}, drain_timeout_s=0.5)
    worker = group.start_worker()
    group.publish(keys(50), seconds=120)
    group.publish(keys(5, prefix="quick"), queue="quick")
    group.wait_for_runs(25 and server.unacked == 20)
    if way == "remote shutdown":
        group.app.control.shutdown()
    else:
        worker.send_signal(signal.Signals[way])
    worker.wait(30)
    assert server.unacked == 0
    messages: list[bytes] = server.client.lrange("work", 0, -1)  # type: ignore[assignment]  # sync and async as one
    redelivered = [json.loads(raw)["properties"]["delivery_info"].get("redelivered", False) for raw in messages]
    assert redelivered == [False] * 30 + [True] * 20, "they are at the head of the queue, which is its right end"
    assert server.size("quick") == 0


@pytest.mark.parametrize("url", ["redis+socket://{}?virtual_host=0", "unix://{}"])
def test_remote_control_answers_stock_clients_and_ours(url: str, fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    group.start_worker()
    group.publish(["long"], seconds=120)
    wait_until(lambda: group.runs, "the task runs")
    config = {**group.config, "redis_url": url.format(server.socket), "stock": not url.startswith("unix")}
    client = create_app(config)
    inspect = client.control.inspect(destination=["w0@test"], timeout=10, limit=1)
    assert inspect.ping() == {"w0@test": {"ok": "pong"}}
    assert [task["args"] for task in inspect.active()["w0@test"]] == [["long", 120]]
    assert inspect.stats()["w0@test"]["total"] == {"note": 1}
    client.close()


def test_an_idle_worker_is_told_of_messages_by_the_server(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    group.start_worker()
    for number in range(10):
        group.publish([f"one{number}"])
        group.wait_for_runs(number + 1)
    flags = [connection["flags"] for connection in server.client.client_list()]
    assert sum("t" in flag for flag in flags) == 1


def test_what_is_no_message_is_dropped_and_the_rest_runs(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    for junk in ("", "junk", "[1, 2]", '{"properties": {}}'):
        server.client.lpush("work", junk)
    group.publish(["good"])
    group.start_worker()
    wait_until(lambda: "good" in group.runs, "the good one ran")
    group.wait_until_done()


def register(server: Server, tag: str, age_s: float, message: str = "{}") -> None:
    seconds, microseconds = server.client.time()  # type: ignore[misc]  # sync and async as one
    server.client.hset("unacked", tag, f'[{message}, "", "work"]')
    server.client.zadd("unacked_index", {tag: seconds + microseconds / 1e6 - age_s})


def test_after_an_outage_the_living_have_time_to_say_so(server: Server) -> None:
    unacked = Unacked(server.client, "unacked", "unacked_index")
    register(server, "dead", age_s=100)
    register(server, "alive", age_s=100)
    assert unacked.expired(2) == []
    unacked.extend([], ["alive"])
    wait_until(lambda: unacked.expired(2) == ["dead"], "the sweep has begun")


def test_only_what_is_silent_long_enough_is_restored(server: Server) -> None:
    unacked = Unacked(server.client, "unacked", "unacked_index")
    register(server, "silent", age_s=100)
    register(server, "alive", age_s=1)
    assert unacked.restore(["silent", "alive", "unknown"], 60) == []
    assert server.size("work") == 1
    assert server.client.hkeys("unacked") == [b"alive"]


@pytest.mark.parametrize(
    ("info", "marked"),
    [
        ('{"delivery_info": {"exchange": ""}}', {"redelivered": True, "exchange": ""}),
        ('{"delivery_info":{"exchange":""}}', {"redelivered": True, "exchange": ""}),
        ('{"delivery_info": {}}', {"redelivered": True}),
        ('{"delivery_info": {"redelivered": true, "exchange": ""}}', {"redelivered": True, "exchange": ""}),
    ],
)
def test_a_restored_message_says_that_it_is_redelivered(info: str, marked: dict[str, Any], server: Server) -> None:
    body = r'"body": "{\"delivery_info\": {}, \"%1\": \"]\"}"'
    register(server, "tag", 100, f'{{{body}, "properties": {info}}}')
    Unacked(server.client, "unacked", "unacked_index").restore(["tag"])
    message = json.loads(str(server.client.lindex("work", 0), "utf-8"))  # type: ignore[arg-type]  # sync and async as one
    assert message["properties"]["delivery_info"] == marked
    assert json.loads(message["body"]) == {"delivery_info": {}, "%1": "]"}


@pytest.mark.parametrize(
    ("redis_url", "settings"),
    [
        ("redis://localhost", {"broker_url": "batchord://localhost/0"}),
        ("redis://:pw@host:6380/3", {"broker_url": "batchord://:pw@host:6380/3"}),
        ("redis://host/?db=2", {"broker_url": "batchord://host/2"}),
        (
            "rediss://u:p%40@host:6380/1",
            {"broker_url": "rediss://u:p%40@host:6380/1?ssl_cert_reqs=required", "broker_transport": "batchord"},
        ),
        (
            "rediss://host?ssl_cert_reqs=none&ssl_ca_certs=%2Fca",
            {"broker_url": "rediss://host/0?ssl_cert_reqs=none&ssl_ca_certs=%2Fca", "broker_transport": "batchord"},
        ),
        ("unix:///run/v.sock", {"broker_url": "batchord+socket:///run/v.sock?virtual_host=0"}),
        ("unix://:pw@/run/v.sock?db=4", {"broker_url": "batchord+socket://:pw@/run/v.sock?virtual_host=4"}),
        ("redis+socket:///run/v.sock?virtual_host=5", {"broker_url": "batchord+socket:///run/v.sock?virtual_host=5"}),
    ],
)
def test_a_redis_url_gives_the_broker_settings(redis_url: str, settings: dict[str, str]) -> None:
    install()
    assert broker_settings(redis_url) == settings
    connection = Connection(settings["broker_url"], transport=settings.get("broker_transport"))
    assert connection.get_transport_cls() is Transport


def test_tls_verifies_the_server_unless_told_otherwise() -> None:
    install()
    settings = broker_settings("rediss://host")
    assert Connection(settings["broker_url"], transport="batchord").ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize("redis_url", ["amqp://host", "localhost:6379", "redis://host/0?socket_timeout=5"])
def test_a_url_that_celery_could_not_use_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigError):
        broker_settings(redis_url)
