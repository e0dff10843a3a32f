"""Whole runs against servers in trouble: nothing is lost, nothing is sent in vain, lines wait rather than fail."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli import Running, chat, wait_until
from tests.acceptance.obedience import assert_all_answered, write_lines
from tests.limited_upstream import LimitedUpstream, Outage, Terms
from tests.upstream import Rule, Upstream, serving

if TYPE_CHECKING:
    from tests.acceptance.cli import Folder
    from tests.upstream import Fault

IN_FLIGHT = 16
LINES = 200
SURE_S = 0.75
"""When the fleet must be sure of an outage: failures in a row for a quarter of a second, and time to hear of it."""
PROBES = 1
"""Of an outage of two seconds: the first comes a second after the circuit has opened, the next two seconds later."""

PASSING: dict[int, Rule] = {
    10: Rule(times=1, fault="reset"),
    20: Rule(times=1, fault="cut"),
    30: Rule(times=1, fault="cut_chunked"),
    40: Rule(times=1, fault="not_http"),
    50: Rule(times=1, fault="hang"),
    60: Rule(times=1, fault="html", status=502),
    70: Rule(times=1, fault="html"),
    80: Rule(times=1, fault="truncated"),
    90: Rule(times=1, fault="error_in_success"),
    100: Rule(times=1, status=500),
    110: Rule(times=1, status=503, headers={"retry-after": "1"}),
    120: Rule(times=1, status=408),
    130: Rule(times=2, fault="truncated"),
}
"""What happens to the first requests of some lines, each between others that are answered."""


def matching(number: int, rule: Rule) -> Rule:
    rule.match = f"<{number}>"
    return rule


def test_a_fault_that_passes_costs_its_line_one_more_request_each_time_and_no_other_line_any(
    folder: Folder, upstream: Upstream
) -> None:
    write_lines(folder, LINES)
    folder.write_provider(upstream.url, max_concurrency=IN_FLIGHT, timeout_s=1.5)
    upstream.rules = [matching(number, rule) for number, rule in PASSING.items()]
    assert_all_answered(folder, folder.run(), LINES)
    sent = {number: upstream.count(f"<{number}>") for number in range(LINES)}
    assert sent == {number: 1 + (PASSING[number].times or 0) if number in PASSING else 1 for number in range(LINES)}


def test_what_sending_again_would_not_mend_is_sent_once(folder: Folder, upstream: Upstream) -> None:
    refused = {3: 400, 30: 401, 60: 403, 90: 404, 120: 413, 150: 422}
    write_lines(folder, LINES)
    folder.write_provider(upstream.url, max_concurrency=IN_FLIGHT)
    upstream.rules = [Rule(match=f"<{number}>", status=status) for number, status in refused.items()]
    ended = folder.run("--workers", "2")
    assert ended.code == 1, ended.err
    failed = {line["custom_id"]: line["response"]["status_code"] for line in folder.error_lines}
    assert failed == {f"id-{number}": status for number, status in refused.items()}
    assert len(folder.output_lines) == LINES - len(refused)
    assert {upstream.count(f"<{number}>") for number in range(LINES)} == {1}


@pytest.mark.parametrize("fault", ["reset", "hang"])
def test_a_fault_that_stays_ends_its_line_after_the_attempts_that_it_has(
    folder: Folder, upstream: Upstream, fault: Fault
) -> None:
    folder.write_input([chat(number) for number in range(20)])
    folder.write_provider(upstream.url, max_concurrency=4, max_attempts=2, timeout_s=0.5)
    upstream.rules = [Rule(match="<7>", fault=fault)]
    ended = folder.run()
    assert ended.code == 1, ended.err
    assert [line["custom_id"] for line in folder.error_lines] == ["id-7"]
    assert [upstream.count(f"<{number}>") for number in range(20)] == [2 if number == 7 else 1 for number in range(20)]


OUTAGES = {
    "answers 503 while it starts": (Outage(Rule(status=503), for_s=2), 1),
    "resets connections while it starts": (Outage(Rule(fault="reset"), for_s=2), 2),
    "sends pages of a gateway": (Outage(Rule(status=502, fault="html"), after_s=0.5, for_s=2), 2),
}


@pytest.mark.parametrize(("outage", "workers"), OUTAGES.values(), ids=OUTAGES)
def test_lines_wait_while_a_provider_is_out_and_nothing_but_probes_is_sent(
    folder: Folder, outage: Outage, workers: int
) -> None:
    terms = Terms(outages=(outage,), latency_s=(0.05, 0.1))
    write_lines(folder, LINES)
    with serving(LimitedUpstream(terms)) as upstream:
        folder.write_provider(upstream.url, max_concurrency=IN_FLIGHT)
        ended = folder.run("--workers", str(workers))
    assert_all_answered(folder, ended, LINES)
    began_s = upstream.requests[0].started_s + outage.after_s
    late = [seen for seen in upstream.requests if began_s + SURE_S < seen.started_s < began_s + outage.for_s]
    assert len(upstream.requests) > LINES
    assert len(late) <= PROBES


def test_a_provider_that_is_started_late_is_waited_for_without_using_up_attempts(folder: Folder) -> None:
    write_lines(folder, LINES)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    folder.write_provider(f"http://127.0.0.1:{port}/v1", max_concurrency=IN_FLIGHT, max_attempts=1)
    with Running(folder.run_arguments(), folder.path) as running:
        wait_until(lambda: "has not answered" in running.err, "the run says that nobody answers")
        with serving(Upstream(), port) as upstream:
            ended = running.end()
    assert_all_answered(folder, ended, LINES)
    assert upstream.count() == LINES
