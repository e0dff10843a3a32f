"""The one check after every fault: nothing lost, nothing wrong, nothing counted twice, nothing left behind."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from batchord import Status
from batchord.broker import CONTROL_QUEUE
from batchord.contract import produced_file_id
from batchord.state import keys
from tests.acceptance.cli import wait_until
from tests.chaos.schedule import say
from tests.chaos.stage import RECOVERED_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from batchord import Batch
    from batchord.contract import BatchObject
    from tests.chaos.stage import Stage

TIDY_S = 60.0
LASTING = re.compile(
    r"batchord:[\w:]+|batchord:\{tenant:\w+\}:(batches|files|once:\w+)|_kombu\.binding.*|unacked_index_since"
)
"""What is a fleet's or a tenant's and no batch's: each a key of a fixed name, or with a time to live."""


def assert_unharmed(stage: Stage) -> None:
    """Wait for the batch's end, and check everything, also after the last process has done what it came back with."""
    batch = stage.batch
    assert batch.wait(timeout_s=RECOVERED_S) is Status.COMPLETED
    assert_empties("what is left in Redis", lambda: left_in_redis(stage, batch))
    assert_empties("what is left in the storage", lambda: left_in_storage(stage, batch))
    assert_drains(stage)
    assert_empties("the processes that are left", lambda: left_processes(stage))
    assert_answered_once(batch, stage.lines)
    assert_sent_again_only_with_an_excuse(stage)
    assert set(left_in_redis(stage, batch)) <= {CONTROL_QUEUE}  # a sweep for the next worker
    assert left_in_storage(stage, batch) == []


def assert_drains(stage: Stage) -> None:
    """Every worker ends when it is told to; one that has just been started is told when it listens."""
    stage.await_living()
    exit_codes = {member.name: member.drain() for member in stage.running}
    assert set(exit_codes.values()) <= {0}, exit_codes


def assert_answered_once(batch: Batch, lines: int) -> None:
    """Every line is in the output once, in the input's order, with its own answer; the counters say the same."""
    record = batch.read()
    assert record.batch.error_file_id is None, list(batch.lines(record.batch.error_file_id or ""))[:3]
    answered = [_spoken(raw) for raw in batch.lines(record.batch.output_file_id or "")]
    assert answered == [(f"id-{number}", f"<{number}>") for number in range(lines)]
    counts = record.batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (lines, lines, 0)
    assert (record.cancelled_lines, record.expired_lines) == (0, 0)
    assert record.batch.usage.total_tokens == 2 * lines  # a word in, a word out


def _spoken(raw: bytes) -> tuple[str, str]:
    line: dict[str, Any] = msgspec.json.decode(raw)
    return line["custom_id"], line["response"]["body"]["choices"][0]["message"]["content"]


def assert_sent_again_only_with_an_excuse(stage: Stage) -> None:
    """A second request is one for a line that was in flight in a process that was hurt, or whose answer was spoilt."""
    again = stage.sent_again()
    retried = [(first, then) for first, then in again if first.sender == then.sender]
    unexcused = [pair for pair in again if pair not in retried and not stage.is_excused(pair[0])]
    assert unexcused == []
    assert len(retried) <= stage.hurt_answers
    say(f"{stage.lines} lines: {len(again)} sent again, {len(retried)} of them since their answer was spoilt")


def assert_empties(what: str, left: Callable[[], Collection[str]]) -> None:
    """Wait until nothing is left: what comes last, such as the tidying after a batch's end, may take a moment."""
    found: Collection[str] = ()

    def is_empty() -> bool:
        nonlocal found
        found = left()  # looked at once: a sweep's message may come and go between two looks
        return not found

    with suppress(AssertionError):
        wait_until(is_empty, what, TIDY_S)
    assert not found, f"{what}: {sorted(found)[:10]}"


def left_in_redis(stage: Stage, batch: Batch) -> list[str]:
    """Give the keys that nobody should find after the end of this batch, queues and what is in flight among them."""
    ended = batch.read().batch
    kept = {keys.batch(ended.id), keys.analytics(ended.id), *map(keys.file, files_of(ended))}
    with stage.redis() as redis:
        return [key for key in redis.scan_iter() if key not in kept and not LASTING.fullmatch(key)]


def files_of(batch: BatchObject) -> set[str]:
    """Give the files that an ended batch has, and the one that it read."""
    found = {batch.input_file_id, batch.output_file_id, batch.error_file_id, produced_file_id(batch.id, "attempts")}
    return {file_id for file_id in found if file_id}


def left_in_storage(stage: Stage, batch: Batch) -> list[str]:
    """Give the paths of bytes that belong to no file of the batch, or are not as many as its record says."""
    left = {str(path.relative_to(stage.storage)) for path in stage.storage.rglob("*") if path.is_file()}
    with stage.redis() as redis:
        for file_id in files_of(batch.read().batch):
            path = stage.storage / "files" / file_id
            if path.exists() and path.stat().st_size == int(str(redis.hget(keys.file(file_id), "bytes"))):
                left.discard(f"files/{file_id}")
            else:
                left.add(f"files/{file_id} is missing or cut short")
    return sorted(left)


def left_processes(stage: Stage) -> list[str]:
    """Give the processes that still know of this stage's folder, all of which its workers must have started."""
    return [
        f"{process.pid}: {' '.join(process.info['cmdline'] or [])}"
        for process in psutil.process_iter(["environ", "cmdline"])
        if (process.info["environ"] or {}).get("BATCHORD_DATA_DIR") == str(stage.path)
    ]
