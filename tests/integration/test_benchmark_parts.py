"""That the benchmark measures what it says: its server, its plain loop, its sampler and its arithmetic. No times."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.benchmarks import load, report, runs
from tests.benchmarks.runs import BenchmarkError, Cell
from tests.benchmarks.sampler import Usage, running, watch

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


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


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
        before_s=0.5,
        batch_s=batch_s,
        after_s=0.5,
        upstream_s=batch_s,
        cpu_batch_s=cpu_batch_s,
        cpu_total_s=cpu_batch_s,
        peak_bytes=1_000_000,
        server_cpu_s=0.1,
        requests=1_000,
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
    assert shown.row_count == 3
