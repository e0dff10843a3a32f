"""The chord of a shard, with real workers: its seal is sent once, whatever happens to its lines and to Redis."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import chord
from celery.app.task import Context

from batchord.errors import StateUnavailableError
from tests.integration.celery_worker import BOUND_S, QUEUE, Site, new_site, publish_lines, wait_for
from workers.chords import CHORD_TTL_S, Backend, chord_keys, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMES = ["redis", "batchord"]


@pytest.fixture(params=SCHEMES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose workers the test starts and stops."""
    with new_site(tmp_path_factory.mktemp("site"), request.param) as site:
        yield site


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site without any worker."""
    with new_site(tmp_path_factory.mktemp("quiet"), "redis") as site:
        yield site


@pytest.fixture(scope="module", params=SCHEMES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with one worker that runs on from test to test."""
    with new_site(tmp_path_factory.mktemp("shared"), request.param) as site:
        site.worker()
        yield site


@pytest.fixture
def gid() -> str:
    return f"batch_{uuid4().hex}/test/0"


def sealed(site: Site, gid: str, times: int = 1) -> None:
    """Wait until all is done, and check how often the seal ran and that the chord left nothing."""
    wait_for(lambda: site.redis.get(f"sealed:{gid}"))
    site.became_idle()
    assert site.redis.get(f"sealed:{gid}") == str(times)
    assert site.redis.keys("batchord:*") == []


def let_results_count(site: Site, *, may: bool) -> None:
    """Let the server carry out or refuse the script of the parts, for a user of the result backend."""
    commands = ["+@all"] if may else ["+@all", "-evalsha"]
    site.redis.acl_setuser(
        "results", enabled=True, passwords=["+secret"], keys=["*"], channels=["*"], commands=commands
    )


@contextmanager
def watched(site: Site) -> Iterator[Any]:
    """Give the state of tasks as Celery's monitors see it, from the events."""
    state = site.app.events.State()
    before = site.redis.pubsub_numpat()
    with site.app.connection_for_read() as connection:
        receiver = site.app.events.Receiver(connection, handlers={"*": state.event})
        thread = threading.Thread(target=lambda: [None for _ in receiver.consume(limit=None, wakeup=False)])
        thread.start()
        try:
            wait_for(lambda: site.redis.pubsub_numpat() > before)
            yield state
        finally:
            receiver.should_stop = True
            thread.join(BOUND_S)


def runs(site: Site, gid: str) -> int:
    """Tell how often lines of the shard ran."""
    ran: Any = site.redis.hgetall("ran")
    return sum(int(times) for line, times in ran.items() if line.startswith(f"{gid}/"))


def test_five_hundred_lines_are_sealed_once(shared: Site, gid: str) -> None:
    publish_lines(shared, gid, range(500))
    sealed(shared, gid)
    assert runs(shared, gid) == 500


def test_lines_that_fail_count(shared: Site, gid: str) -> None:
    lines = {index: ("fail" if index % 2 else "ok",) for index in range(100)}
    publish(shared.app, gid, lines, QUEUE, (gid,))
    sealed(shared, gid)


def test_a_revoked_line_counts(shared: Site, gid: str) -> None:
    shared.app.control.revoke(f"{gid}/3")
    inspect = shared.app.control.inspect(timeout=10, limit=1)
    wait_for(lambda: any(f"{gid}/3" in revoked for revoked in (inspect.revoked() or {}).values()))
    publish_lines(shared, gid, range(10))
    sealed(shared, gid)
    assert runs(shared, gid) == 9


def test_an_ignored_line_is_acked_and_does_not_count(shared: Site, gid: str) -> None:
    publish(shared.app, gid, {0: ("ok",), 1: ("ignore",)}, QUEUE, (gid,))
    waiting, _ = chord_keys(gid)
    wait_for(lambda: shared.redis.smembers(waiting) == {"1"})
    shared.became_idle()
    assert shared.redis.get(f"sealed:{gid}") is None
    publish_lines(shared, gid, [1])
    sealed(shared, gid)


def test_lines_delivered_twice_are_sealed_once(shared: Site, gid: str) -> None:
    publish_lines(shared, gid, range(500), queue="parked")
    messages = shared.redis.lrange("parked", 0, -1)
    shared.redis.delete("parked")
    again = [json.loads(message) for message in messages]
    for message in again:
        message["properties"]["delivery_tag"] = str(uuid4())
    shared.redis.lpush(QUEUE, *messages, *map(json.dumps, again))
    sealed(shared, gid)
    wait_for(lambda: runs(shared, gid) == 1000)


def test_lines_published_twice_are_sealed(shared: Site, gid: str) -> None:
    publish_lines(shared, gid, range(100), "hold")
    shared.redis.set("release", 1)
    publish_lines(shared, gid, range(100))
    wait_for(lambda: runs(shared, gid) == 200)
    sealed(shared, gid)
    shared.redis.delete("release")


def test_a_completed_chord_published_again_leaves_nothing(shared: Site, gid: str) -> None:
    publish_lines(shared, gid, range(10))
    sealed(shared, gid)
    publish_lines(shared, gid, [3, 7])
    wait_for(lambda: shared.redis.get(f"sealed:{gid}") == "2")
    sealed(shared, gid, times=2)


def test_a_chord_completes_after_the_server_forgot_its_scripts(shared: Site, gid: str) -> None:
    shared.redis.script_flush()
    publish_lines(shared, gid, range(10))
    sealed(shared, gid)


def test_somebody_elses_chord_goes_celerys_way(shared: Site) -> None:
    header = [shared.app.signature("greet", (name,), queue=QUEUE) for name in ("b", "a")]
    result = chord(header, app=shared.app)(shared.app.signature("gather", queue=QUEUE))
    assert result.get(timeout=BOUND_S) == [f"hello a on {QUEUE}", f"hello b on {QUEUE}"]


def test_task_events_tell_of_lines_with_their_short_headers(site: Site, gid: str) -> None:
    site.worker(TASK_EVENTS="1")
    with watched(site) as state:
        publish(site.app, gid, {0: ("ok",), 1: ("fail",)}, QUEUE, (gid,))
        wanted = {f"{gid}/0": "SUCCESS", f"{gid}/1": "FAILURE", f"{gid}/seal": "SUCCESS"}
        wait_for(lambda: {name: task.state for name, task in list(state.tasks.items())} == wanted)
    assert {task.name for task in state.tasks.values()} == {"batchord.execute", "batchord.seal"}


def test_parts_that_the_server_refuses_are_kept_and_nothing_is_acked_meanwhile(site: Site, gid: str) -> None:
    let_results_count(site, may=False)
    worker = site.worker(RESULTS_PASSWORD="secret")
    publish_lines(site, gid, range(50))
    wait_for(lambda: runs(site, gid) == 50 and worker.log.count("Chord parts not counted") > 1)
    assert site.redis.hlen("unacked") == 50
    assert site.redis.get(f"sealed:{gid}") is None
    let_results_count(site, may=True)
    sealed(site, gid)
    assert runs(site, gid) == 50


def test_a_stopping_worker_counts_parts_that_were_refused_before(site: Site, gid: str) -> None:
    let_results_count(site, may=False)
    worker = site.worker(RESULTS_PASSWORD="secret")
    publish_lines(site, gid, range(50))
    wait_for(lambda: runs(site, gid) == 50 and "Chord parts not counted" in worker.log)
    worker.ask_to_stop()
    wait_for(lambda: "Warm shutdown" in worker.log)
    let_results_count(site, may=True)
    assert worker.process.wait(BOUND_S) == 0
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked"), site.redis.llen("control")) == (0, 0, 1)


def test_a_line_that_a_stopping_worker_gives_back_is_waited_for(site: Site, gid: str) -> None:
    worker = site.worker()
    publish(site.app, gid, {0: ("ok",), 1: ("wait",)}, QUEUE, (gid,))
    waiting, _ = chord_keys(gid)
    wait_for(lambda: runs(site, gid) == 2 and site.redis.smembers(waiting) == {"1"})
    worker.ask_to_stop()
    assert worker.process.wait(BOUND_S) == 0
    assert site.redis.smembers(waiting) == {"1"}
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked")) == (1, 0)


def test_lost_connections_do_not_lose_or_repeat_the_seal(site: Site, gid: str) -> None:
    site.worker(VISIBILITY_S="3")
    publish_lines(site, gid, range(300), "hold")
    wait_for(lambda: site.redis.llen("began") >= 300)
    site.redis.set("release", 1)
    for _ in range(3):
        site.redis.client_kill_filter(_type="normal", skipme=True)
    sealed(site, gid)


def test_a_killed_server_does_not_lose_or_repeat_the_seal(site: Site, gid: str) -> None:
    worker = site.worker(VISIBILITY_S="3")
    publish_lines(site, gid, range(300), "hold")
    wait_for(lambda: site.redis.llen("began") >= 300)
    os.kill(site.valkey.pid, signal.SIGKILL)
    wait_for(site.valkey.restart_if_dead)
    site.redis.set("release", 1)

    def is_sealed() -> Any:
        nonlocal worker
        if worker.process.poll() is not None:  # the stock transport ends the worker; a supervisor starts it again
            worker = site.start_worker(VISIBILITY_S="3")
        return site.redis.get(f"sealed:{gid}")

    wait_for(is_sealed)
    sealed(site, gid)


def test_a_killed_workers_lines_are_sealed_by_the_next(site: Site, gid: str) -> None:
    first = site.worker(VISIBILITY_S="3")
    publish_lines(site, gid, range(300), "hold")
    wait_for(lambda: site.redis.llen("began") >= 300)
    first.kill()
    site.redis.set("release", 1)
    site.worker(VISIBILITY_S="3")
    sealed(site, gid)


def test_a_chord_that_nobody_completes_expires(quiet: Site, gid: str) -> None:
    publish_lines(quiet, gid, range(3))
    for key in chord_keys(gid):
        assert 0 < quiet.redis.ttl(key) <= CHORD_TTL_S
        assert key.startswith(f"batchord:{{{gid.split('/', 1)[0]}}}:")


def test_a_forgotten_chord_is_gone_and_a_part_that_comes_late_leaves_nothing(quiet: Site, gid: str) -> None:
    publish_lines(quiet, gid, [0])
    quiet.redis.delete(*chord_keys(gid))
    quiet.app.backend.on_chord_part_return(Context(id=f"{gid}/0", group=gid, chord={}), "SUCCESS", None)
    assert quiet.redis.exists(*chord_keys(gid)) == 0


def test_a_backend_outside_of_our_pool_counts_at_once(quiet: Site, gid: str) -> None:
    publish_lines(quiet, gid, [0])
    quiet.redis.delete("control")
    backend = quiet.app.backend
    assert isinstance(backend, Backend)
    backend.on_chord_part_return(Context(id=f"{gid}/0", group=gid, chord={}), "SUCCESS", None)
    assert quiet.redis.llen("control") == 1


def test_the_seals_message_is_what_the_transport_would_have_pushed(quiet: Site, gid: str) -> None:
    publish_lines(quiet, gid, [0])
    _, meta = chord_keys(gid)
    quiet.redis.delete("control")
    quiet.app.send_task("batchord.seal", (gid,), task_id=f"{gid}/seal", queue="control", ignore_result=True)
    ours, theirs = (json.loads(text or "") for text in (quiet.redis.hget(meta, "m"), quiet.redis.lindex("control", 0)))
    assert quiet.redis.hget(meta, "q") == "control"
    assert ours.keys() == theirs.keys()
    assert ours["properties"].keys() == theirs["properties"].keys()
    assert ours["headers"].keys() == theirs["headers"].keys()
    assert json.loads(ours["body"]) == json.loads(theirs["body"])


@pytest.mark.parametrize("malformed", ["", "batch", "batch/provider", "a/b/c/d", "a/b/{c}", "a/b/c\n", "ä/b/1"])
def test_a_malformed_id_is_refused(malformed: str) -> None:
    with pytest.raises(ValueError, match="Not a shard's chord"):
        chord_keys(malformed)


def test_no_lines_are_refused(quiet: Site, gid: str) -> None:
    with pytest.raises(ValueError, match="No lines"):
        publish_lines(quiet, gid, [])


def test_a_server_that_refuses_to_write_is_told_as_our_error(quiet: Site, gid: str) -> None:
    quiet.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StateUnavailableError, match=gid):
            publish_lines(quiet, gid, range(3))
    finally:
        quiet.redis.config_set("maxmemory", 0)
