"""That the benchmark measures what it says: its server, its plain loop, its sampler and its arithmetic. No times."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.benchmarks import costs, load, recovery, report, runs, scale, steps
from tests.benchmarks.components import HUB, LOOP, MemoryByComponent
from tests.benchmarks.runs import BenchmarkError, Cell
from tests.benchmarks.sampler import Usage, running, watch
from tests.benchmarks.table import Table, write_blocks

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60
BURN = "import time\nheld = b'x' * 80_000_000\nwhile time.process_time() < 0.6: pass"
BURN_IN_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}], check=True)"
WAIT_WITH_A_CHILD = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
child.wait()
"""


def _output_line(custom_id: str, status_code: int = 200) -> str:
    return (
        json.dumps({"custom_id": custom_id, "response": {"status_code": status_code, "body": {}}, "error": None}) + "\n"
    )


def test_the_plain_loop_answers_every_line_and_the_server_counts_them(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 12)
    run = runs.run("plain", Cell(latency_s=0.05, in_flight=4), source, empty, workers=1)
    with (empty / "output.jsonl").open(encoding="utf-8") as output:
        answers = [json.loads(line) for line in output]
    assert {answer["custom_id"] for answer in answers} == {f"line-{number:07}" for number in range(1, 13)}
    assert {answer["response"]["body"]["object"] for answer in answers} == {"chat.completion"}
    assert run.requests == 12
    assert 1 < run.peak_in_flight <= 4


def test_a_batch_cannot_be_faster_than_the_servers_latency_allows(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 6)
    run = runs.run("plain", Cell(latency_s=0.1, in_flight=2), source, empty, workers=1)
    assert run.batch_s >= run.upstream_s >= 0.3
    assert run.before_s > 0 < run.after_s
    assert run.cpu_total_s >= run.cpu_batch_s


def test_the_server_counts_what_was_sent_twice(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 3)
    first, *others = source.path.read_text(encoding="utf-8").splitlines(keepends=True)
    again = first.replace("line-0000001", "line-0000004")  # another line with the same body
    source.path.write_text("".join([first, *others, again]), encoding="utf-8")
    run = runs.run("plain", Cell(latency_s=0, in_flight=2), runs.Input(source.path, 4), empty, workers=1)
    assert (run.requests, run.repeated, run.answered) == (4, 1, 4)


def test_a_stock_celery_worker_answers_every_line(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 4)
    run = runs.run("celery-prefork", Cell(latency_s=0, in_flight=2), source, empty, workers=1)
    assert (run.answered, run.requests, run.repeated) == (4, 4, 0)


def test_a_line_s_cpu_is_told_by_process_and_thread(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 40)
    breakdown = steps.measure(Cell(latency_s=0, in_flight=8), source, empty, workers=1)
    assert {"command", "valkey", "upstream", HUB, LOOP} <= set(breakdown.component_ms)
    assert breakdown.component_ms[LOOP] > 0
    assert breakdown.step_ms or breakdown.without_steps


def test_a_redis_is_asked_what_lines_cost_it(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 40)
    measured = scale.measure_load(Cell(latency_s=0, in_flight=8), source, empty, workers=1, aof=True)
    assert measured.commands > measured.scripts > 0
    assert measured.calls["hsetnx"] >= 1  # the record of a line
    assert min(measured.received_bytes, measured.aof_bytes, measured.redis_cpu_ms, measured.worker_cpu_ms) > 0
    assert measured.stored_bytes > 2 * 300  # its input and its output
    assert 0 < measured.rest_bytes < 40_000


def test_what_redis_keeps_for_a_window_is_told_by_kind_of_key(tmp_path: Path, empty: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 60)
    held = scale.measure_held(source, empty, in_flight=8)
    assert held.lines == 60
    assert {"provider.upstream", "unacked", "batchord:{…}:chord:upstream:waiting"} <= set(held.key_bytes)
    assert held.bytes_a_line > 100


def test_every_line_of_the_input_is_a_request_of_its_own(tmp_path: Path) -> None:
    source = runs.write_input(tmp_path / "input.jsonl", 50)
    requests = [json.loads(line) for line in source.path.read_text(encoding="utf-8").splitlines()]
    assert len({request["custom_id"] for request in requests}) == source.lines == 50
    assert len({json.dumps(request["body"]) for request in requests}) == 50


@pytest.mark.parametrize(
    "output",
    [
        _output_line("a"),
        _output_line("a") + _output_line("a"),
        _output_line("a") + _output_line("b", status_code=500),
        _output_line("a") + _output_line("b") + _output_line("c"),
    ],
    ids=["one missing", "one twice", "one failed", "one too many"],
)
def test_an_output_that_is_not_complete_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "output.jsonl").write_text(output, encoding="utf-8")
    with pytest.raises(BenchmarkError, match="for 2 lines"):
        runs.check_output(tmp_path / "output.jsonl", 2)


def test_a_command_that_fails_is_reported_with_its_last_words(empty: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"(?s)exit status 3.*out of luck"):
        runs.finish([sys.executable, "-c", "import sys; sys.stderr.write('out of luck'); sys.exit(3)"], empty)


def test_the_sampler_counts_the_cpu_of_a_child_that_has_ended(empty: Path) -> None:
    with running([sys.executable, "-c", BURN_IN_A_CHILD], empty) as started:
        usage = watch(started, TIMEOUT_S)
    assert started.returncode == 0
    assert usage.cpu_s[-1] >= 0.6


def test_the_sampler_sees_the_memory_of_a_child(empty: Path) -> None:
    with running([sys.executable, "-c", BURN_IN_A_CHILD], empty) as started:
        usage = watch(started, TIMEOUT_S)
    assert usage.peak_bytes >= 80_000_000


def test_a_command_that_takes_too_long_is_given_up(empty: Path) -> None:
    with (
        running([sys.executable, "-c", WAIT_WITH_A_CHILD], empty) as started,
        pytest.raises(TimeoutError, match="still running"),
    ):
        watch(started, timeout_s=0)


def test_a_command_is_ended_with_all_its_processes_by_what_interrupts_it(empty: Path) -> None:
    tree: list[psutil.Process] = []
    with contextlib.suppress(KeyboardInterrupt), running([sys.executable, "-c", WAIT_WITH_A_CHILD], empty) as started:
        tree += [psutil.Process(started.pid), psutil.Process(int(runs.first_line(empty / "stdout")))]
        raise KeyboardInterrupt
    assert len(tree) == 2
    assert all(map(_has_ended, tree))


def _has_ended(process: psutil.Process) -> bool:
    """Tell whether it runs no more; where nobody reaps orphans it stays a zombie."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("at", "cpu_s"), [(9.0, 0.0), (10.0, 0.0), (10.5, 1.0), (11.0, 2.0), (11.75, 2.75), (13.0, 3.0)]
)
def test_cpu_between_two_samples_is_in_proportion(at: float, cpu_s: float) -> None:
    assert Usage([10.0, 11.0, 12.0], [0.0, 2.0, 3.0], 0).cpu_until(at) == pytest.approx(cpu_s)


def _run(tool: runs.Tool, batch_s: float, cpu_batch_s: float) -> runs.Run:
    return runs.Run(
        tool=tool,
        cell=Cell(0.2, 64),
        lines=1_000,
        answered=1_000,
        started_at=100.0,
        before_s=0.5,
        batch_s=batch_s,
        after_s=0.5,
        upstream_s=batch_s,
        cpu_batch_s=cpu_batch_s,
        cpu_total_s=cpu_batch_s,
        peak_bytes=1_000_000,
        server_cpu_s=0.1,
        requests=1_000,
        repeated=0,
        peak_in_flight=64,
        reported={},
    )


def test_ratios_compare_the_runs_of_one_round() -> None:
    in_turn = [
        *(_run("plain", 1.0, 0.25), _run("batchord", 2.0, 0.5)),
        *(_run("plain", 10.0, 0.25), _run("batchord", 10.0, 0.75)),
        *(_run("plain", 2.0, 0.125), _run("batchord", 8.0, 1.0)),
    ]
    (comparison,) = report.compare(in_turn)
    assert comparison.rounds == 3
    assert comparison.plain["lines_per_s"] == report.Spread(median=500, low=100, high=1_000)
    assert comparison.ratio["lines_per_s"] == report.Spread(median=0.5, low=0.25, high=1.0)
    assert comparison.ratio["cpu_ms_per_line"] == report.Spread(median=3.0, low=2.0, high=8.0)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (50, 50), (100, 99), (101, 100), (200, 198)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(count: int, expected: int) -> None:
    assert load.percentile([float(value) for value in range(count, 0, -1)], 99) == expected


def test_the_server_s_clients_and_those_of_the_bare_route_send_the_same_requests(empty: Path) -> None:
    (measured,) = load.measure(load.Shape(clients=3, requests_each=20, running_lines=2_000), empty, rounds=1)
    for each in (measured.server, measured.bare):
        assert set(each.p99_ms) == {"poll", "list", "create"}
        assert all(each.p99_ms[kind] >= each.p50_ms[kind] > 0 for kind in each.p99_ms)
        assert each.requests_per_s > 0
    assert measured.api_peak_bytes > 10_000_000
    shown = report.load_table([measured])
    assert [row[0] for row in shown.rows] == ["batchord", "bare route", "ratio"]


def test_the_memory_of_a_tree_is_told_by_process(empty: Path) -> None:
    memory = MemoryByComponent()
    with running([sys.executable, "-c", BURN_IN_A_CHILD], empty) as started:
        usage = watch(started, TIMEOUT_S, memory)
    assert 0 < memory.at_peak["command"] < usage.peak_bytes


@pytest.mark.parametrize(
    ("innermost", "step"),
    [
        ("Connection.ask (workers/providers/http1.py:70)", "send"),
        ("Desk.begin (workers/desk.py:40)", "begin"),
        ("Desk._record (workers/desk.py:110)", "record"),
        ("Backend.flush_parts (workers/chords.py:170)", "acknowledge and chord"),
        ("publish (workers/chords.py:110)", "publish"),
        ("Channel._receive_fetched (workers/transport.py:200)", "fetch and deliver"),
        ("seal (workers/seal.py:30)", "plan, feed, seal, finalize, sweep"),
        ("Handle._run (asyncio/events.py:80)", "the rest: asyncio, the pool"),
    ],
)
def test_a_stack_belongs_to_a_step(innermost: str, step: str) -> None:
    assert steps.step_of(f"run (asyncio/runners.py:190);{innermost};dumps (json/__init__.py:1)") == step


def test_the_cpu_of_a_thread_is_divided_among_its_own_steps() -> None:
    loop, hub = "LoopThread._run (workers/pool_loop.py:1)", "<module> (workers/__main__.py:1)"
    stacks = [
        (f"{loop};post (workers/providers/connections.py:1)", 3),
        (f"{loop};begin (workers/desk.py:1)", 1),
        (f"{loop};select (selectors.py:1)", 1_000),  # it waits
        (f"{hub};deliver (workers/transport.py:1)", 1),
        (f"{hub};_find_and_load (<frozen importlib._bootstrap>:1)", 1_000),  # its start
    ]
    divided = steps.by_step(stacks, {LOOP: 0.8, HUB: 0.1})
    assert divided == pytest.approx({"send": 0.6, "begin": 0.2, "fetch and deliver": 0.1})


def test_workers_are_killed_between_a_fifth_and_half_of_the_lines() -> None:
    shares = [recovery.Shape(100, Cell(0, 1), 2, kills, 60).kill_shares for kills in (1, 2, 4)]
    assert shares == [[0.5], pytest.approx([0.2, 0.5]), pytest.approx([0.2, 0.3, 0.4, 0.5])]


def test_a_recovery_is_compared_with_what_the_rest_takes_undisturbed() -> None:
    last = recovery.Kill(at=1_000.0, answered=75, in_flight=8)
    assert recovery.later_s(undisturbed_s=40, last=last, lines=100, ended_at=1_012.0) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("lines_per_s", "call_s", "processes"),
    [(1, 1, 1), (600, 0.1, 1), (601, 0.1, 2), (100, 10, 1), (100, 10.01, 2)],
    ids=["hardly any", "a core's worth", "more", "as many calls as one holds", "more calls"],
)
def test_a_fleet_is_sized_by_cpu_and_by_calls(lines_per_s: float, call_s: float, processes: int) -> None:
    assert costs.workers_for(costs.Example("", lines_per_s, call_s), worker_cpu_ms=1.0) == processes


def test_tables_renew_their_own_blocks_of_a_page_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench one -->\nold\n<!-- end -->\nb\n<!-- bench two -->\nkept\n<!-- end -->\n")
    tables = [Table("one", "One", ["x\ny", "z"], [["1\n2", "3"]], note="how"), Table("three", "", [], [])]
    write_blocks(page, tables, source="where")
    expected = "| x y | z |\n| --- | --- |\n| 1 2 | 3 |\n\nHow.\n\nwhere\n"
    assert page.read_text() == (
        f"a\n<!-- bench one -->\n{expected}<!-- end -->\nb\n<!-- bench two -->\nkept\n<!-- end -->\n"
    )
