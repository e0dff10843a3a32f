"""A fleet that runs on its own, and the programs and commands that hand it batches."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from batchord import BatchordError, ConflictError, InputRefusedError, NotFoundError, Status, submit
from batchord.errors import ConfigError, InvalidRequestError
from batchord.state import keys
from tests.acceptance.cli import PATIENCE_S, Folder, chat, environment, wait_until
from tests.acceptance.fleet import Fleet, run_s3
from tests.upstream import Rule, Upstream, run_upstream
from workers.permits import slots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batchord import Batch


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Upstream]]:
    """A fleet of two workers that the gentle tests share."""
    with run_upstream() as upstream, Fleet(tmp_path_factory.mktemp("house")) as fleet:
        local = {"base_url": upstream.url, "models": ["m*"], "max_concurrency": 20, "max_attempts": 2}
        fleet.write_providers(local=local)
        fleet.start(2)
        yield fleet, upstream


@pytest.fixture
def upstream(house: tuple[Fleet, Upstream]) -> Upstream:
    house[1].reset()
    house[1].latency_s = 0.0
    return house[1]


@pytest.fixture
def fleet(house: tuple[Fleet, Upstream], upstream: Upstream) -> Fleet:
    assert upstream.count() == 0
    return house[0]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Fleet, Upstream]]:
    """A fleet without a worker yet, of which the test may kill what it likes."""
    with run_upstream(latency_s=0.2) as upstream, Fleet(tmp_path) as fleet:
        fleet.write_providers(local={"base_url": upstream.url, "max_concurrency": 20})
        yield fleet, upstream


def items(count: int) -> Iterator[dict[str, Any]]:
    return ({"custom_id": f"id-{number}", "message": f"<{number}>"} for number in range(count))


def ids(count: int) -> list[str]:
    return [f"id-{number}" for number in range(count)]


def sent(upstream: Upstream) -> Counter[str]:
    """How often each line was sent."""
    return Counter(seen.body for seen in upstream.requests)


def end_window(fleet: Fleet, batch: Batch) -> None:
    """Let the completion window be over, which in earnest lasts minutes at the least."""
    with fleet.redis() as server:
        server.hset(keys.batch(batch.id), "expires_at", "1")


def outcomes(batch: Batch) -> dict[str, str | None]:
    """The error's code of each line, None for a success; no line is told twice."""
    results = list(batch.results())
    by_id = {result.custom_id: result.error.code if result.error else None for result in results}
    assert len(by_id) == len(results)
    return by_id


def test_a_file_is_answered_whole_and_in_order(fleet: Fleet, upstream: Upstream, folder: Folder) -> None:
    folder.write_input([chat(number) for number in range(300)])
    batch = submit(str(folder.input), settings=fleet.client().settings)
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    results = list(batch.results())
    assert [result.custom_id for result in results] == ids(300)
    assert all(result.ok and result.status_code == 200 for result in results)
    assert results[7].body is not None
    assert results[7].body["choices"][0]["message"]["content"] == "<7>"
    assert set(sent(upstream).values()) == {1}


def test_requests_from_a_generator_become_a_batch_with_all_that_was_said_of_it(
    fleet: Fleet, upstream: Upstream
) -> None:
    batch = fleet.client().submit(
        items(5), model="m-embed", endpoint="/v1/embeddings", metadata={"team": "search"}, completion_window="30m"
    )
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    record = batch.read().batch
    assert (record.endpoint, record.model, record.metadata) == ("/v1/embeddings", "m-embed", {"team": "search"})
    assert record.expires_at - record.created_at == 1800
    assert (record.request_counts.total, record.request_counts.completed) == (5, 5)
    assert record.usage.input_tokens == 5
    assert min(seen.body for seen in upstream.requests) == '{"model":"m-embed","input":"<0>"}'
    assert {seen.path for seen in upstream.requests} == {"/v1/embeddings"}
    assert [len(result.body["data"]) for result in batch.results() if result.body] == [1] * 5


def test_errors_are_values_among_the_results(fleet: Fleet, upstream: Upstream) -> None:
    upstream.rules = [
        Rule(match="<1>", status=400),
        Rule(match="<2>", fault="reset"),
        Rule(match="<3>", status=503, times=1),
    ]
    batch = fleet.client().submit(items(6), model="m")
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    by_id = {result.custom_id: result for result in batch.results()}
    assert [name for name, result in by_id.items() if not result.ok] == ["id-1", "id-2"]
    refused, unanswered = by_id["id-1"].error, by_id["id-2"].error
    assert refused is not None
    assert (by_id["id-1"].status_code, refused.code) == (400, "upstream_error")
    assert unanswered is not None
    assert (by_id["id-2"].status_code, unanswered.code) == (None, "connection_error")
    counts = batch.read().batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (6, 4, 2)


def test_progress_goes_to_standard_error(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.client().submit(items(3), model="m").wait(progress=True, timeout_s=PATIENCE_S)
    shown = capsys.readouterr()
    assert "completed: 3/3 lines" in shown.err
    assert shown.out == ""


def test_a_wait_may_end_before_the_batch_which_goes_on(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    upstream.rules = [Rule(match="<0>", fault="hang", times=1)]
    fleet.start()
    batch = fleet.client().submit(items(2), model="m")
    wait_until(lambda: upstream.count() == 2 and upstream.in_flight == 1, "only the line that hangs is in flight")
    with pytest.raises(TimeoutError, match=batch.id):
        batch.wait(timeout_s=0.01)
    with pytest.raises(ConflictError, match="in_progress"):
        next(batch.results())
    fleet.workers[0].kill()
    fleet.start()
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED


def test_a_cancelled_batch_finishes_what_is_in_flight_and_sends_nothing_more(fleet: Fleet, upstream: Upstream) -> None:
    upstream.latency_s = 1.0
    batch = fleet.client().submit(items(2_500), model="m")
    wait_until(lambda: upstream.count() >= 20, "lines are in flight")

    assert batch.cancel() is Status.CANCELLING
    assert batch.cancel() in {Status.CANCELLING, Status.CANCELLED}
    assert batch.wait(timeout_s=PATIENCE_S) is Status.CANCELLED

    by_id, answered = outcomes(batch), upstream.count()
    assert sorted(by_id) == sorted(ids(2_500))
    assert Counter(by_id.values()) == {None: answered, "batch_cancelled": 2_500 - answered}
    assert answered < 1_000
    assert set(sent(upstream).values()) == {1}
    record = batch.read().batch
    counts = record.request_counts
    assert (counts.total, counts.completed, counts.failed) == (2_500, answered, 0)
    assert record.cancelled_at is not None
    assert batch.cancel() is Status.CANCELLED


def test_a_batch_that_has_ended_otherwise_cannot_be_cancelled(fleet: Fleet) -> None:
    batch = fleet.client().submit(items(1), model="m")
    batch.wait(timeout_s=PATIENCE_S)
    with pytest.raises(ConflictError, match=r"^Cannot cancel a batch with status 'completed'\.$"):
        batch.cancel()
    assert batch.status is Status.COMPLETED


def test_a_refused_input_is_an_error_that_lists_every_problem(fleet: Fleet, upstream: Upstream) -> None:
    batch = fleet.client().submit([{"custom_id": "a", "message": "1"}, {"custom_id": "a", "message": "2"}], model="x")
    with pytest.raises(InputRefusedError) as raised:
        batch.wait(timeout_s=PATIENCE_S)
    assert [problem.partition(":")[0] for problem in raised.value.problems] == ["line 1", "line 2"]
    assert "local: m*" in raised.value.problems[0]
    assert (batch.status, upstream.count()) == (Status.FAILED, 0)
    assert list(batch.results()) == []
    with pytest.raises(ConflictError, match="failed"):
        batch.cancel()


def test_a_wrong_argument_is_refused_before_anything_is_stored(fleet: Fleet, folder: Folder) -> None:
    folder.write_input([chat(1)])
    client = fleet.client()
    with fleet.redis() as server:
        before = sorted(server.scan_iter("batchord:{*"))
    wrong: list[dict[str, Any]] = [
        {"source": "none.jsonl"},
        {"source": folder.input, "model": "m"},
        {"source": folder.input, "completion_window": "soon"},
        {"source": folder.input, "endpoint": "/v1/nonsense"},
        {"source": folder.input, "metadata": {"key": "x" * 513}},
        {"source": ["no mapping"], "model": "m"},
    ]
    for arguments in wrong:
        with pytest.raises(BatchordError) as raised:
            client.submit(**arguments)
        assert isinstance(raised.value, ConfigError | InvalidRequestError) or "Request 1" in str(raised.value)
    with pytest.raises(NotFoundError, match="batch_none"):
        client.batch("batch_none")
    with fleet.redis() as server:
        assert sorted(server.scan_iter("batchord:{*")) == before


def test_several_batches_share_the_fleet(fleet: Fleet, upstream: Upstream) -> None:
    client = fleet.client()
    batches = [client.submit(items(150), model=f"m-{number}") for number in range(5)]
    for batch in batches:
        assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
        assert list(outcomes(batch)) == ids(150)
    assert upstream.count() == 750
    assert set(sent(upstream).values()) == {1}
    assert upstream.max_in_flight <= 20


def test_a_provider_that_hangs_holds_up_no_other_one(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    upstream.rules = [Rule(match='"slow"', fault="hang")]
    slow = {"base_url": upstream.url, "models": ["slow"], "max_concurrency": 4}
    fleet.write_providers(slow=slow, local={"base_url": upstream.url, "max_concurrency": 20})
    fleet.start()
    lines = ({"custom_id": f"id-{n}", "message": f"<{n}>", "model": "slow" if n % 2 else "m"} for n in range(400))
    batch = fleet.client().submit(lines)
    wait_until(lambda: batch.read().batch.request_counts.completed == 200, "every line of the other one is answered")
    assert upstream.in_flight == upstream.count('"slow"') == 4


def test_the_commands_carry_a_batch_from_its_file_to_its_results(
    fleet: Fleet, upstream: Upstream, folder: Folder
) -> None:
    folder.write_input([chat(number) for number in range(4)])
    upstream.rules = [Rule(match="<2>", status=400)]
    submitted = fleet.run("submit", str(folder.input), "--wait", "--metadata", "a=b=c", "--completion-window", "2h")
    assert submitted.code == 1, submitted.err
    batch_id = submitted.out.strip()
    assert "completed: 4/4 lines, 1 failed" in submitted.err

    shown = json.loads(fleet.run("status", batch_id).out)
    assert (shown["id"], shown["status"], shown["metadata"]) == (batch_id, "completed", {"a": "b=c"})
    assert shown["expires_at"] - shown["created_at"] == 7200
    successes = [json.loads(line) for line in fleet.run("results", batch_id).out.splitlines()]
    assert [line["custom_id"] for line in successes] == ["id-0", "id-1", "id-3"]
    errors = [json.loads(line) for line in fleet.run("results", batch_id, "--errors").out.splitlines()]
    assert [line["custom_id"] for line in errors] == ["id-2"]
    refused = fleet.run("cancel", batch_id)
    assert (refused.code, "'completed'" in refused.err) == (3, True)


def test_a_running_batch_is_cancelled_by_the_command_and_has_no_results_yet(
    fleet: Fleet, upstream: Upstream, folder: Folder
) -> None:
    folder.write_input([chat(number) for number in range(3_000)])
    upstream.latency_s = 0.5
    batch_id = fleet.run("submit", str(folder.input)).out.strip()
    wait_until(lambda: upstream.in_flight > 0, "lines are in flight")
    early = fleet.run("results", batch_id)
    assert (early.code, early.out) == (3, "")
    assert "still in_progress" in early.err
    assert fleet.run("cancel", batch_id).out.strip() == "cancelling"
    batch = fleet.client().batch(batch_id)
    assert batch.wait(timeout_s=PATIENCE_S) is Status.CANCELLED


@pytest.mark.parametrize("command", ["status", "results", "cancel"])
def test_a_command_on_an_unknown_batch_says_so(fleet: Fleet, command: str) -> None:
    ended = fleet.run(command, "batch_none")
    assert (ended.code, ended.out) == (3, "")
    assert "batch_none" in ended.err


def test_a_refused_file_makes_submit_and_wait_exit_with_2(fleet: Fleet, folder: Folder) -> None:
    folder.write_input([chat(1), chat(1)])
    ended = fleet.run("submit", str(folder.input), "--wait")
    assert ended.code == 2
    assert "line 2: custom_id: duplicates line 1" in ended.err


def test_health_tells_whether_redis_answers_and_a_worker_of_this_host_lives(fleet: Fleet, tmp_path: Path) -> None:
    well = fleet.run("health", "--worker")
    assert (well.code, "2 worker(s) alive" in well.out) == (0, True)
    with Fleet(tmp_path) as empty:
        assert empty.run("health").code == 0
        assert empty.run("health", "--worker").code == 3
    away = empty.run("health")
    assert (away.code, "BATCHORD_REDIS_URL says which Redis" in away.err) == (3, True)


def celery(fleet: Fleet, *arguments: str) -> dict[str, Any]:
    """Ask by the stock command, which knows the broker's URL and nothing of ours."""
    command = [sys.executable, "-m", "celery", "-b", fleet.celery_url, "inspect", *arguments, "--json"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_S, env=environment(None)
    )
    return dict(json.loads(ended.stdout))


def test_celery_s_own_commands_see_the_workers_share_of_the_work(fleet: Fleet) -> None:
    def executed() -> Counter[str]:
        stats = celery(fleet, "stats")
        return Counter({name: worker["total"].get("batchord.execute", 0) for name, worker in stats.items()})

    answers = celery(fleet, "ping")
    assert len(answers) == 2
    assert all(answer == {"ok": "pong"} for answer in answers.values())
    before = executed()
    fleet.client().submit(items(400), model="m").wait(timeout_s=PATIENCE_S)
    done = executed() - before
    assert (len(done), sum(done.values())) == (2, 400)


def test_flower_shows_the_workers(fleet: Fleet, unused_tcp_port: int) -> None:
    command = [sys.executable, "-m", "celery", "-b", fleet.celery_url, "flower", f"--port={unused_tcp_port}"]
    env = environment({"FLOWER_UNAUTHENTICATED_API": "true"})
    flower = subprocess.Popen(
        [*command, "--address=127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )

    def shown() -> dict[str, Any]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{unused_tcp_port}/api/workers?refresh=1", timeout=PATIENCE_S
            ) as answer:
                return dict(json.load(answer))
        except urllib.error.URLError:
            return {}

    try:
        wait_until(lambda: len(shown()) == 2, "Flower shows both workers")
        queues = [{queue["name"] for queue in worker["active_queues"]} for worker in shown().values()]
        assert queues == [{"control", "provider.local"}] * 2
    finally:
        flower.kill()
        flower.wait()


def test_a_worker_told_to_end_under_load_finishes_its_lines_and_the_other_goes_on(
    own: tuple[Fleet, Upstream],
) -> None:
    fleet, upstream = own
    leaving, staying = fleet.start(2)
    batch = fleet.client().submit(items(600), model="m")
    wait_until(lambda: upstream.count() >= 60, "both are busy")
    assert leaving.drain() == 0
    assert upstream.count() < 600
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    assert list(outcomes(batch)) == ids(600)
    assert set(sent(upstream).values()) == {1}
    assert fleet.living() == {staying.pid}


def test_a_killed_worker_costs_only_its_lines_in_flight_a_second_request(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    killed, _ = fleet.start(2)
    batch = fleet.client().submit(items(600), model="m")
    wait_until(lambda: upstream.count() >= 60, "both are busy")
    killed.kill()
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    assert list(outcomes(batch)) == ids(600)
    assert all(code is None for code in outcomes(batch).values())
    again = [times for times in sent(upstream).values() if times > 1]
    assert set(again) <= {2}
    assert len(again) <= slots(20)  # what it held: lines in flight, and answers that it had not yet recorded


def test_a_batch_whose_every_worker_was_killed_goes_on_with_the_next_one(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    fleet.start(2)
    batch = fleet.client().submit(items(200), model="m")
    wait_until(lambda: upstream.count() >= 60, "both are busy")
    for worker in fleet.workers:
        worker.kill()
    wait_until(lambda: upstream.in_flight == 0, "what they had sent is answered in vain")
    in_vain = upstream.count() - batch.read().recorded
    assert 0 < in_vain <= 2 * slots(20)
    fleet.start()
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    assert list(outcomes(batch)) == ids(200)
    assert upstream.count() == 200 + in_vain


def test_a_batch_past_its_window_expires_and_keeps_what_is_answered(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    fleet.start()
    batch = fleet.client().submit(items(5_500), model="m")  # more than the window of shards that are open
    wait_until(lambda: upstream.count() >= 60, "some lines are sent")
    end_window(fleet, batch)
    assert batch.wait(timeout_s=PATIENCE_S) is Status.EXPIRED
    by_id, answered = outcomes(batch), upstream.count()
    assert sorted(by_id) == sorted(ids(5_500))
    assert Counter(by_id.values()) == {None: answered, "batch_expired": 5_500 - answered}
    counts = batch.read().batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (5_500, answered, 0)
    assert set(sent(upstream).values()) == {1}


def test_a_batch_that_nobody_has_touched_by_its_end_expires_whole(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    batch = fleet.client().submit(items(3), model="m")
    end_window(fleet, batch)
    fleet.start()
    assert batch.wait(timeout_s=PATIENCE_S) is Status.EXPIRED
    assert outcomes(batch) == dict.fromkeys(ids(3), "batch_expired")
    assert upstream.count() == 0


def test_a_batch_may_live_in_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_s3("bucket") as variables, run_upstream() as upstream:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with Fleet(tmp_path, {"BATCHORD_STORAGE_URL": "s3://bucket/house"}) as fleet:
            fleet.write_providers(local={"base_url": upstream.url, "max_attempts": 1})
            upstream.rules = [Rule(match="<1>", status=400), Rule(match="<2>", fault="huge", size_bytes=6_000_000)]
            fleet.start()
            batch = fleet.client().submit(items(1_200), model="m")
            assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
            by_id = {result.custom_id: result for result in batch.results()}
            assert sorted(by_id) == sorted(ids(1_200))
            assert [name for name, result in by_id.items() if not result.ok] == ["id-1"]
            huge = by_id["id-2"].body
            assert huge is not None
            assert len(huge["text"]) == 6_000_000
            assert not (tmp_path / "storage").exists()
            assert fleet.workers[0].drain() == 0


def test_a_worker_that_is_told_twice_to_end_still_drains(own: tuple[Fleet, Upstream]) -> None:
    fleet, upstream = own
    (worker,) = fleet.start()
    batch = fleet.client().submit(items(100), model="m")
    wait_until(lambda: upstream.in_flight == 20, "it is busy")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.drain() == 0
    fleet.start()
    assert batch.wait(timeout_s=PATIENCE_S) is Status.COMPLETED
    assert list(outcomes(batch)) == ids(100)
    assert set(sent(upstream).values()) == {1}
