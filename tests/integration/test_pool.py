"""The task pool in real workers: on the stock Redis transport and on ours."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from tests.integration.celery_worker import BOUND_S, QUEUE, Site, new_site, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMES = ["redis", "batchord"]
on_one_broker = pytest.mark.parametrize("site", ["batchord"], indirect=True)
"""For workers that end before they ask for a message."""


@pytest.fixture(params=SCHEMES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose workers the test starts and stops."""
    with new_site(tmp_path_factory.mktemp("site"), request.param) as site:
        yield site


@pytest.fixture(scope="module", params=SCHEMES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with one worker that runs on from test to test."""
    with new_site(tmp_path_factory.mktemp("shared"), request.param) as site:
        site.worker()
        yield site


@pytest.fixture
def busy(shared: Site) -> Iterator[Site]:
    """The shared site, with what `hold` writes removed before and after."""
    keys = ("began", "ended", "cancelled", "release")
    shared.redis.delete(*keys)
    yield shared
    shared.redis.set("release", 1)
    shared.became_idle()
    shared.redis.delete(*keys)


def began(site: Site, count: int) -> None:
    wait_for(lambda: site.redis.llen("began") == count)


def drains(site: Site) -> None:
    wait_for(lambda: "draining" in site.redis.lrange("context", 0, -1))


def asked(site: Site, question: str) -> Any:
    answers = wait_for(getattr(site.app.control.inspect(timeout=10, limit=1), question))
    (answer,) = answers.values()
    return answer


def test_two_thousand_coroutines_are_in_flight_at_once(shared: Site) -> None:
    for _ in range(2000):
        shared.send("join_crowd", 2000, ignore_result=True)
    shared.became_idle()


def test_a_coroutine_returns_its_result_and_knows_its_request(shared: Site) -> None:
    assert shared.send("greet", "you").get(timeout=BOUND_S) == f"hello you on {QUEUE}"


def test_a_coroutine_may_start_processes_and_threads(shared: Site) -> None:
    assert shared.send("run_shell", "echo out; exit 3").get(timeout=BOUND_S) == ["out\n", 3]


def test_a_plain_function_runs_once(shared: Site) -> None:
    assert shared.send("count", "plain").get(timeout=BOUND_S) == "1"
    assert shared.redis.get("plain") == "1"


def test_an_exception_is_a_failure_with_the_coroutines_traceback(shared: Site) -> None:
    result = shared.send("fail")
    with pytest.raises(ValueError, match="as asked for"):
        result.get(timeout=BOUND_S)
    assert result.state == "FAILURE"
    assert "in fail" in result.traceback


def test_wrong_arguments_are_a_failure(shared: Site) -> None:
    with pytest.raises(TypeError):
        shared.send("greet", "too", "many").get(timeout=BOUND_S)


@pytest.mark.parametrize("name", ["leave", "leave_async"])
def test_a_task_that_tries_to_exit_does_not_take_the_worker_along(shared: Site, name: str) -> None:
    shared.send(name, ignore_result=True)
    shared.became_idle()
    assert shared.send("greet", "again").get(timeout=BOUND_S)


def test_a_cancellation_from_within_is_a_failure_and_the_worker_lives_on(shared: Site) -> None:
    with pytest.raises(RuntimeError, match="CancelledError"):
        shared.send("cancel_itself").get(timeout=BOUND_S)
    assert shared.send("greet", "again").get(timeout=BOUND_S)


def test_a_message_is_acked_only_after_its_coroutine_has_ended(busy: Site) -> None:
    busy.send("hold", "a", ignore_result=True)
    began(busy, 1)
    assert busy.redis.hlen("unacked") == 1
    busy.redis.set("release", 1)
    busy.became_idle()
    assert busy.redis.lrange("ended", 0, -1) == ["a"]


def test_a_soft_time_limit_cancels_the_coroutine(busy: Site) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        busy.send("hold", "soft", soft_time_limit=0.2).get(timeout=BOUND_S)
    assert busy.redis.lrange("cancelled", 0, -1) == ["soft"]


def test_a_hard_time_limit_does_not_wait_for_the_coroutine(busy: Site) -> None:
    with pytest.raises(TimeLimitExceeded):
        busy.send("ignore_cancellation", time_limit=0.2).get(timeout=BOUND_S)
    busy.became_idle()
    assert wait_for(lambda: busy.redis.lrange("cancelled", 0, -1)) == ["in vain"]


def test_a_running_coroutine_can_be_terminated(busy: Site) -> None:
    result = busy.send("hold", "a")
    began(busy, 1)
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=BOUND_S)
    assert wait_for(lambda: busy.redis.lrange("cancelled", 0, -1)) == ["a"]
    busy.became_idle()


def test_a_task_revoked_before_it_starts_does_not_run(busy: Site) -> None:
    busy.app.control.revoke("not-this-one")
    wait_for(lambda: "not-this-one" in asked(busy, "revoked"))
    with pytest.raises(TaskRevokedError):
        busy.send("hold", "a", task_id="not-this-one").get(timeout=BOUND_S)
    busy.became_idle()
    assert busy.redis.llen("began") == 0


def test_inspection_answers_and_tells_of_the_pool(busy: Site) -> None:
    busy.send("hold", "a", ignore_result=True, task_id="under-way")
    began(busy, 1)
    assert asked(busy, "ping") == {"ok": "pong"}
    assert [task["id"] for task in asked(busy, "active")] == ["under-way"]
    pool = asked(busy, "stats")["pool"]
    assert pool["implementation"] == "workers.pool:TaskPool"
    assert pool["max-concurrency"] == 2500
    assert pool["in-flight"] == 1
    assert len(pool["processes"]) == 1


def test_the_limit_grows_and_shrinks(shared: Site) -> None:
    shared.app.control.pool_grow(10)
    wait_for(lambda: asked(shared, "stats")["pool"]["max-concurrency"] == 2510)
    shared.app.control.pool_shrink(10)
    wait_for(lambda: asked(shared, "stats")["pool"]["max-concurrency"] == 2500)


def test_after_a_lost_connection_the_pool_still_records_what_ended(site: Site) -> None:
    worker = site.worker()
    site.redis.client_kill_filter(_type="normal", skipme=True)
    wait_for(lambda: "Connection to broker lost" in worker.log)
    for _ in range(20):
        site.send("nothing", ignore_result=True)
    site.became_idle()


def test_a_killed_workers_messages_are_not_lost(site: Site) -> None:
    worker = site.worker()
    for number in range(20):
        site.send("hold", number, ignore_result=True)
    began(site, 20)
    worker.kill()
    assert site.redis.hlen("unacked") + site.redis.llen(QUEUE) == 20


def test_a_stopping_worker_finishes_what_is_in_flight_and_starts_nothing(site: Site) -> None:
    worker = site.worker()
    for number in range(20):
        site.send("hold", number, ignore_result=True)
    began(site, 20)
    worker.ask_to_stop()
    drains(site)
    for _ in range(5):
        site.send("hold", "too late", ignore_result=True)
    site.redis.set("release", 1)
    assert worker.process.wait(BOUND_S) == 0
    assert site.redis.llen("ended") == 20
    assert site.redis.llen("cancelled") == 0
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked")) == (5, 0)
    assert site.redis.lrange("context", 0, -1) == ["opened", "draining", "closed"]


def test_a_stopping_worker_gives_back_at_once_what_only_waits(site: Site) -> None:
    worker = site.worker()
    site.send("hold", "a", ignore_result=True)
    for _ in range(20):
        site.send("wait_for_permit", ignore_result=True)
    began(site, 21)
    worker.ask_to_stop()
    wait_for(lambda: site.redis.llen(QUEUE) >= 19)  # one may sit in a BRPOP of the stock transport until its end
    assert worker.process.poll() is None
    site.redis.set("release", 1)
    assert worker.process.wait(BOUND_S) == 0
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked")) == (20, 0)


@pytest.mark.parametrize(("drain_s", "how"), [("0.5", signal.SIGTERM), ("60", signal.SIGQUIT)])
def test_what_does_not_end_in_time_is_cancelled_and_goes_back(site: Site, drain_s: str, how: signal.Signals) -> None:
    worker = site.worker(DRAIN_S=drain_s)
    for number in range(20):
        site.send("hold", number, ignore_result=True)
    began(site, 20)
    worker.process.send_signal(how)
    assert worker.process.wait(BOUND_S) == 0
    assert site.redis.llen("cancelled") == 20
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked")) == (20, 0)
    assert site.redis.lrange("context", 0, -1) == ["opened", "draining", "closed"]


def test_a_second_signal_ends_a_drain(site: Site) -> None:
    worker = site.worker()
    site.send("hold", "a", ignore_result=True)
    began(site, 1)
    worker.ask_to_stop()
    drains(site)
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(BOUND_S)
    assert (site.redis.llen(QUEUE), site.redis.hlen("unacked")) == (1, 0)


@on_one_broker
def test_a_context_that_does_not_open_stops_the_worker_with_its_error(site: Site) -> None:
    worker = site.start_worker(BROKEN_CONTEXT="1")
    assert worker.process.wait(BOUND_S) == 1
    assert "the context would not open" in worker.log


@on_one_broker
def test_a_coroutine_that_nobody_would_await_stops_the_worker(site: Site) -> None:
    worker = site.start_worker(WRONG_BASE="1")
    assert worker.process.wait(BOUND_S) == 1
    assert "Task unawaited: an `async def` task" in worker.log


@on_one_broker
def test_a_broker_that_no_event_loop_can_watch_stops_the_worker(site: Site) -> None:
    worker = site.start_worker(BROKER_URL="memory://")
    assert worker.process.wait(BOUND_S) == 1
    assert "The pool needs a broker that Celery's event loop can watch" in worker.log
