from __future__ import annotations

import json
import random
import signal
import socket
import ssl
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection

from batchord.errors import ConfigError
from tests.integration.transport_worker import Fleet, Server, create_app, wait_until
from workers.transport import Transport, install
from workers.transport_unacked import Unacked
from workers.transport_url import broker_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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


def known_to(server: Server) -> set[str]:
    """The keys of the tasks that are queued or unacknowledged."""
    unacked = [json.loads(record)[0] for record in server.ask("HVALS", "unacked")]
    return {json.loads(message["body"])[0][0] for message in [*server.messages("work"), *unacked]}


def wait_for_more(group: Fleet, count: int) -> None:
    before = len(group.runs)
    wait_until(lambda: len(group.runs) >= before + count, f"{count} more tasks run")


def test_no_message_is_lost_when_busy_workers_are_killed(fleet: Callable[..., Fleet], server: Server) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"seed {seed}\n")
    chance = random.Random(seed)
    kills = 5
    published = keys(1000 * kills)
    group = fleet(visibility_timeout_s=2)
    group.publish(published)
    for _ in range(kills):
        worker = group.start_worker()
        wait_for_more(group, chance.randrange(1, 900))
        worker.kill()
        worker.wait(10)
        assert set(published) <= set(group.runs) | known_to(server)
    group.start_worker()
    group.wait_until_done()
    assert set(group.runs) == set(published)


def test_a_task_longer_than_the_visibility_timeout_runs_once(fleet: Callable[..., Fleet]) -> None:
    group = fleet(visibility_timeout_s=3, slots={"work": 20})
    group.start_worker()
    group.start_worker()
    group.publish(keys(30), seconds=8)
    group.wait_for_runs(30)
    group.wait_until_done()
    assert group.runs == Counter(keys(30))


def test_tasks_in_flight_when_their_connection_is_killed_run_once(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    worker = group.start_worker()
    group.publish(keys(100), seconds=5)
    group.wait_for_runs(100)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    group.publish(["after"])
    group.wait_for_runs(101)
    group.wait_until_done()
    assert group.runs == Counter([*keys(100), "after"])
    assert worker.poll() is None


def test_tasks_in_flight_when_the_server_restarts_run_once(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    worker = group.start_worker()
    group.publish(keys(100), seconds=8)
    group.wait_for_runs(100)
    server.stop()
    server.start()
    group.publish(["after"])
    group.wait_for_runs(101)
    group.wait_until_done()
    assert group.runs == Counter([*keys(100), "after"])
    assert worker.poll() is None


def test_a_flushed_script_cache_stops_nothing(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet()
    group.start_worker()
    for turn in range(3):
        group.publish(keys(10, prefix=f"turn{turn}-"))
        group.wait_for_runs(10 * (turn + 1))
        server.ask("SCRIPT", "FLUSH")
    group.wait_until_done()
    assert set(group.runs.values()) == {1}


def test_a_full_server_loses_nothing(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 20})
    group.start_worker()
    group.publish(keys(40), seconds=2)
    group.wait_for_runs(20)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    group.wait_until_done()
    assert group.runs == Counter(keys(40))


def test_a_queue_with_full_slots_does_not_hold_another(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"slow": 5, "fast": 5})
    group.publish(keys(20), seconds=120, queue="slow")
    group.start_worker()
    group.publish(keys(300, prefix="fast"), seconds=0.01, queue="fast")
    group.wait_for_runs(305)
    assert set(group.runs) > set(keys(300, prefix="fast"))
    assert server.size("slow") == 15


def test_slots_changed_at_run_time_are_obeyed(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 0, "control": 10})
    group.start_worker()
    group.publish(keys(10), seconds=120)
    group.publish(["first"], queue="control")
    group.wait_for_runs(1)
    assert server.size("work") == 10
    group.set_slots("work", 3, by="control")
    group.wait_for_runs(1 + 3)
    group.set_slots("work", 7, by="control")
    group.wait_for_runs(1 + 7)
    group.set_slots("work", 0, by="control")
    group.publish(["last"], queue="control")
    group.wait_for_runs(1 + 7 + 1)
    assert server.size("work") == 3


@pytest.mark.parametrize("way", ["SIGTERM", "SIGQUIT", "remote shutdown"])
def test_a_stopped_worker_gives_back_what_is_unfinished(way: str, fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(slots={"work": 20, "quick": 20}, drain_timeout_s=0.5)
    worker = group.start_worker()
    group.publish(keys(50), seconds=120)
    group.publish(keys(5, prefix="quick"), queue="quick")
    group.wait_for_runs(25)
    if way == "remote shutdown":
        group.app.control.shutdown()
    else:
        worker.send_signal(signal.Signals[way])
    assert worker.wait(30) == 0
    assert server.unacked == 0
    assert server.size("quick") == 0
    redelivered = ["redelivered" in message["properties"]["delivery_info"] for message in server.messages("work")]
    assert redelivered == [False] * 30 + [True] * 20, "at the head of the queue, which is its right end"


def test_a_stopping_worker_finishes_what_nobody_else_then_runs(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(visibility_timeout_s=3, slots={"work": 20})
    stopping = group.start_worker()
    group.publish(keys(10), seconds=1)
    group.publish(keys(10, prefix="long"), seconds=8)
    group.wait_for_runs(20)
    stopping.terminate()
    group.start_worker()
    assert stopping.wait(30) == 0
    assert server.is_empty_of("work")
    assert group.runs == Counter([*keys(10), *keys(10, prefix="long")])


@pytest.mark.parametrize("stock", [True, False])
def test_remote_control_answers_stock_clients_and_ours(
    stock: bool, fleet: Callable[..., Fleet], server: Server
) -> None:
    group = fleet()
    group.start_worker()
    group.publish(["long"], seconds=120)
    group.wait_for_runs(1)
    client = create_app(group.config | ({"stock_url": f"redis+socket://{server.socket_path}"} if stock else {}))
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
    assert sum("t" in connection["flags"] for connection in server.client.client_list()) == 1


def test_a_server_that_cannot_tell_of_messages_is_asked(fleet: Callable[..., Fleet], server: Server) -> None:
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    group = fleet()
    group.start_worker()
    for number in range(10):
        group.publish([f"one{number}"])
        group.wait_for_runs(number + 1)
    group.wait_until_done()


def test_tcp_and_another_database_work_too(fleet: Callable[..., Fleet], server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server.ask("CONFIG", "SET", "port", str(port))
    group = fleet(redis_url=f"redis://127.0.0.1:{port}/3")
    group.start_worker()
    group.publish(keys(300))
    group.wait_for_runs(300)


def test_what_is_no_message_is_dropped_and_the_rest_runs(fleet: Callable[..., Fleet], server: Server) -> None:
    server.ask("LPUSH", "work", "", "junk", "[1, 2]", '{"properties": {}}')
    group = fleet()
    group.publish(["good"])
    group.start_worker()
    group.wait_for_runs(1)
    group.wait_until_done()


def register(server: Server, tag: str, age_s: float, message: str = "{}", exchange: str = "") -> None:
    seconds, _ = server.client.time()
    server.ask("HSET", "unacked", tag, f'[{message}, "{exchange}", "work"]')
    server.ask("ZADD", "unacked_index", seconds - age_s, tag)


def test_a_message_that_stock_kombu_left_unacknowledged_runs(fleet: Callable[..., Fleet], server: Server) -> None:
    group = fleet(visibility_timeout_s=2)
    group.publish(["left"])
    register(server, "tag", age_s=100, message=server.ask("RPOP", "work").decode(), exchange="work")
    group.start_worker()
    group.wait_for_runs(1)
    group.wait_until_done()


def test_after_an_outage_the_living_have_time_to_say_so(server: Server) -> None:
    unacked = Unacked(server.client, "unacked", "unacked_index")
    register(server, "dead", age_s=100)
    register(server, "alive", age_s=100)
    assert unacked.expired(60) == []
    unacked.extend([], ["alive"])
    server.ask("SET", "unacked_index_since", "1")
    assert unacked.expired(60) == ["dead"]


def test_a_full_server_still_knows_who_is_alive(server: Server) -> None:
    unacked = Unacked(server.client, "unacked", "unacked_index")
    register(server, "dead", age_s=100)
    register(server, "alive", age_s=100)
    server.ask("SET", "unacked_index_since", "1")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    unacked.extend([], ["alive"])
    assert unacked.expired(60) == ["dead"]
    assert unacked.restore(["dead"], 60) == []
    assert server.size("work") == 1


def test_only_what_is_silent_long_enough_is_restored(server: Server) -> None:
    register(server, "silent", age_s=100)
    register(server, "alive", age_s=1)
    assert Unacked(server.client, "unacked", "unacked_index").restore(["silent", "alive", "unknown"], 60) == []
    assert server.size("work") == 1
    assert server.ask("HKEYS", "unacked") == [b"alive"]


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
    register(server, "tag", 0, f'{{{body}, "properties": {info}}}')
    Unacked(server.client, "unacked", "unacked_index").restore(["tag"])
    [message] = server.messages("work")
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
