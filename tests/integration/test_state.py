"""The state on the real server: every case of the scripts once more, racing callers, and a server that is unwell."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import subprocess
import time
from importlib import import_module
from typing import TYPE_CHECKING, Final, Self

import pytest
import redis
from hypothesis.stateful import run_state_machine_as_test

from batchord import embedded
from batchord.embedded import EmbeddedValkey
from batchord.errors import StateUnavailableError
from batchord.lifecycle import Outcome, Status, to
from batchord.state import batches, keys, leases, shards
from batchord.state.calls import Call, Script
from batchord.state.connection import BlockingState, State, StateError
from batchord.state.shards import Contact, LineRecord, Verdict
from tests.unit import test_scripts_calls
from tests.unit.fake_state import (
    CLAIM_S,
    CREATED_AT,
    WIDE,
    batch_object,
    created,
    long_contact,
    opened,
    record,
    record_of,
    started,
    succeeded,
)
from tests.unit.test_batch_machine import FAST, BatchMachine
from workers.patience import patiently

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

BOUND_S: Final = 30
CROWD: Final = range(30)
NOUNS: Final = ("batches", "calls", "claims", "conditions", "files", "leases", "lines", "shards")

# pytest collects the cases of the scripts as this module's own, and gives them this module's `state`.
for noun in NOUNS:
    for name, case in vars(import_module(f"tests.unit.test_scripts_{noun}")).items():
        if name.startswith("test_") and "state" in inspect.signature(case).parameters:
            globals()[name] = case


@pytest.fixture
def state(valkey: EmbeddedValkey) -> Iterator[BlockingState]:
    with connected(valkey.url) as state:
        yield state


@pytest.fixture
async def fleet(valkey: EmbeddedValkey) -> AsyncIterator[State]:
    state = State(valkey.url)
    yield state
    await state.aclose()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server that the test may kill or spoil."""
    with EmbeddedValkey(tmp_path) as server:
        yield server


@pytest.fixture
async def own_fleet(own: EmbeddedValkey) -> AsyncIterator[State]:
    state = State(own.url)
    yield state
    await state.aclose()


@contextlib.contextmanager
def connected(url: str) -> Iterator[BlockingState]:
    state = BlockingState(url)
    try:
        yield state
    finally:
        state.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def kill(server: EmbeddedValkey) -> None:
    assert server._server is not None
    process = server._server.process
    process.kill()
    until(lambda: process.poll() is not None)  # its socket is closed a moment before


@pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes minutes
def test_a_batch_stays_true_whatever_happens_to_it(state: BlockingState) -> None:
    class OnValkey(BatchMachine):
        @staticmethod
        def connect() -> BlockingState:
            state.run(Call(("FLUSHALL",), bool))
            return state

    run_state_machine_as_test(OnValkey, settings=FAST)


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols_read_alike(protocol: int, valkey: EmbeddedValkey) -> None:
    with connected(f"{valkey.url}?protocol={protocol}") as state:
        test_scripts_calls.test_both_protocols_read_batches_and_open_shards_alike(state)


async def test_of_many_movers_at_once_one_wins(fleet: State, state: BlockingState) -> None:
    batch_id = created(state, Status.FINALIZING)
    targets = [Status.COMPLETED, Status.EXPIRED, Status.CANCELLING]
    moves = [batches.transition(batch_id, to(targets[n % 3]), n, {"ended_ms": n}) for n in CROWD]
    moved = await asyncio.gather(*(fleet.run(move) for move in moves))
    assert sum(moved) == 1
    record = record_of(state, batch_id)
    assert record.batch.status is targets[moved.index(True) % 3]
    assert record.ended_ms == moved.index(True)


async def test_of_many_feeds_at_once_each_opens_another_shard(fleet: State, state: BlockingState) -> None:
    batch_id = started(state, {"local": [1] * 20})
    opened_now = await asyncio.gather(*(fleet.run(shards.open_next(batch_id, "local", WIDE)) for _ in CROWD))
    assert sorted(shard for shard in opened_now if shard) == [(number, 1) for number in range(20)]


async def test_of_many_workers_at_once_one_sends_a_line(fleet: State, state: BlockingState) -> None:
    shard = opened(state, 1)
    calls = [shards.begin(shard, f"w{n}", CLAIM_S, long_contact(state), [0]) for n in CROWD]
    verdicts = [verdict for (verdict,) in await asyncio.gather(*map(fleet.run, calls))]
    assert sorted(verdicts) == [Verdict.CLAIMED] * (len(CROWD) - 1) + [Verdict.SEND]


async def test_of_many_records_of_a_line_at_once_one_counts(fleet: State, state: BlockingState) -> None:
    shard, outcomes = opened(state, 1), list(Outcome)
    calls = [record(shard, [LineRecord(0, outcomes[n % 4], b"%d" % n)]) for n in CROWD]
    first = (await asyncio.gather(*map(fleet.run, calls))).index(1)
    assert record_of(state, shard.batch_id).recorded == 1
    assert state.run(shards.outcomes(shard, [0])) == [outcomes[first % 4].encode() + b"%d" % first]


async def test_of_many_seals_at_once_one_frees_the_window(fleet: State, state: BlockingState) -> None:
    shard = opened(state, 1)
    state.run(record(shard, succeeded(0)))
    assert sum(await asyncio.gather(*(fleet.run(shards.seal(shard, 0)) for _ in CROWD))) == 1
    assert state.run(Call(("HGET", keys.batch(shard.batch_id), "open_lines:local"), int)) == 0


async def test_of_many_who_want_a_lease_one_holds_it(fleet: State) -> None:
    calls = [leases.take(keys.SWEEP_LEASE, f"w{n}", 60) for n in CROWD]
    assert sum(await asyncio.gather(*map(fleet.run, calls))) == 1


async def test_thousands_of_calls_in_one_round_trip_are_answered_in_order(fleet: State, state: BlockingState) -> None:
    shard = opened(state, 1_000)
    calls = [record(shard, succeeded(n // 2)) for n in range(2_000)]
    assert await fleet.run_all(calls) == [1, 0] * 1_000
    assert state.run(shards.seal(shard, 0))


async def test_hundreds_of_callers_share_few_connections(fleet: State) -> None:
    names = [keys.step_lease(f"batch_{n}", "plan") for n in range(200)]
    assert all(await asyncio.gather(*(fleet.run(leases.take(name, "w", 60)) for name in names)))
    assert await fleet.run(Call(("CLIENT", "LIST"), lambda clients: clients.count(b"id="))) < 50


async def test_a_program_without_the_server_extra_sends_the_same(fleet: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchord.state.wire.HIREDIS_AVAILABLE", False)
    said = ("\u00e4", b"\xff\r\n", -1, 0.1)
    assert await fleet.run_all([Call(("RPUSH", "said", *said), int), Call(("LRANGE", "said", 0, -1), list)]) == [
        4,
        ["\u00e4".encode(), b"\xff\r\n", b"-1", b"0.1"],
    ]


async def test_scripts_that_the_server_lost_are_loaded_again(fleet: State, state: BlockingState) -> None:
    shard = opened(state, 1)
    for scripts in [Script.loaded.values(), [shards._RECORD], [shards._SEAL, shards._BEGIN]]:
        await fleet.run(Call(("SCRIPT", "FLUSH"), bool))
        for script in scripts:
            await fleet.run(Call(("SCRIPT", "LOAD", script.text), bool))
        assert await fleet.run_all([shards.missing(shard, CLAIM_S, Contact())] * 2) == [([0], True)] * 2


async def test_what_was_answered_outlives_a_killed_server(own: EmbeddedValkey, own_fleet: State) -> None:
    batch = batch_object()
    assert await own_fleet.run(batches.create(batch))
    kill(own)
    own.restart_if_dead()
    moved = await patiently(lambda: own_fleet.run(batches.transition(batch.id, to(Status.CANCELLING), CREATED_AT)))
    record = await own_fleet.run(batches.read(batch.id))
    assert moved
    assert record is not None
    assert record.batch.status is Status.CANCELLING


async def test_a_batch_is_created_and_on_disk_in_one_round_trip(fleet: State) -> None:
    batch = batch_object()
    await fleet.run(Call(("SCRIPT", "FLUSH"), bool))
    await fleet.run_all([batches.create(batch), batches.durable(BOUND_S * 1_000)])
    assert await fleet.run(Call(("WAITAOF", 1, 0, 1), list)) == [1, 0]
    assert await fleet.run(batches.read(batch.id)) is not None


async def test_a_server_without_an_append_only_file_says_that_nothing_is_durable(own_fleet: State) -> None:
    await own_fleet.run(Call(("CONFIG", "SET", "appendonly", "no"), bool))
    with pytest.raises(StateError, match="appendonly"):
        await own_fleet.run(batches.durable(1))


async def test_a_write_that_is_not_on_disk_in_time_is_told(own_fleet: State) -> None:
    await own_fleet.run(Call(("CONFIG", "SET", "appendfsync", "no"), bool))
    try:
        _, told = await own_fleet.run_all([batches.create(batch_object()), batches.durable(1)])
    except StateUnavailableError:
        return
    assert told is False


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with connected(f"unix://{tmp_path}/none.sock") as state, pytest.raises(StateUnavailableError):
        state.run(batches.read("batch_none"))


async def test_a_port_where_nobody_listens_is_unavailable(unused_tcp_port: int) -> None:
    state = State(f"redis://127.0.0.1:{unused_tcp_port}/0")
    with pytest.raises(StateUnavailableError):
        await state.run(batches.read("batch_none"))
    await state.aclose()


async def waited_for(state: State, mend: Callable[[], object]) -> bool:
    """Create a batch on an unwell server: a single try must fail for now, and patience must outlast that."""
    create = batches.create(batch_object())
    with pytest.raises(StateUnavailableError):
        await state.run(create)
    waiting = asyncio.create_task(patiently(lambda: state.run(create)))
    await asyncio.wait({waiting}, timeout=0.2)
    assert not waiting.done()
    mend()
    return await asyncio.wait_for(waiting, BOUND_S)


async def test_patience_outlasts_a_server_that_is_away(own: EmbeddedValkey, own_fleet: State) -> None:
    kill(own)
    assert await waited_for(own_fleet, own.restart_if_dead)


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        pytest.param("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", id="OOM"),
        pytest.param("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", id="READONLY"),
        pytest.param("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", id="NOREPLICAS"),
    ],
)
async def test_patience_outlasts_a_server_that_refuses_writes_for_now(
    spoil: str, mend: str, own: EmbeddedValkey, own_fleet: State
) -> None:
    with redis.Redis.from_url(own.url) as operator:
        operator.execute_command(spoil)
        assert await waited_for(own_fleet, lambda: operator.execute_command(mend))


async def test_patience_outlasts_a_server_whose_disk_takes_nothing(own: EmbeddedValkey, own_fleet: State) -> None:
    snapshot = own.data_dir / "valkey" / "dump.rdb"
    snapshot.mkdir()  # what cannot be replaced by a file, as little as on a full disk
    with redis.Redis.from_url(own.url) as operator:
        operator.config_set("save", "3600 1")
        operator.bgsave()
        until(lambda: operator.info("persistence")["rdb_last_bgsave_status"] == "err")
        try:
            assert await waited_for(own_fleet, lambda: operator.config_set("stop-writes-on-bgsave-error", "no"))
        finally:
            operator.config_set("save", "")


@pytest.fixture
def loading(own: EmbeddedValkey) -> Iterator[str]:
    """The URL of a server that takes some seconds to load its data."""
    with redis.Redis.from_url(own.url) as operator:
        operator.mset({f"key{n}": os.urandom(128) for n in range(300)})
        operator.bgrewriteaof()
        until(lambda: operator.info("persistence")["aof_base_size"] > 0)
    own.stop()
    slow = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"]  # 10 ms a key
    options = embedded._options(own.data_dir / "valkey", own.socket_path)
    server = subprocess.Popen([embedded._binary(), *options, *slow], stdout=subprocess.DEVNULL)
    try:
        until(lambda: embedded._ping(own.socket_path).startswith(b"-LOADING"))
        yield own.url
    finally:
        server.kill()
        server.wait(BOUND_S)


class Way:
    """A way to the server, on which connections can go silent for good, as behind a gateway that forgot them."""

    def __init__(self, server: EmbeddedValkey, path: Path) -> None:
        self.url = f"unix://{path}"
        self._server, self._path = server, path
        self._flows: list[asyncio.Event] = []

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(self._pass_on, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()

    def forget(self) -> None:
        """Let no more bytes through on the connections that there are."""
        for flow in self._flows:
            flow.clear()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flow = asyncio.Event()
        flow.set()
        self._flows.append(flow)
        answers, asks = await asyncio.open_unix_connection(self._server.socket_path)
        ways = [(reader, asks), (answers, writer)]
        with contextlib.closing(writer), contextlib.closing(asks):
            await asyncio.wait(
                [asyncio.create_task(self._pipe(*way, flow)) for way in ways], return_when=asyncio.FIRST_COMPLETED
            )

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow: asyncio.Event) -> None:
        while piece := await reader.read(65_536):
            if flow.is_set():
                writer.write(piece)


async def test_connections_that_have_gone_silent_cost_one_try_and_not_one_each(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with Way(valkey, tmp_path / "way.sock") as way, contextlib.aclosing(State(way.url, timeout_s=2)) as state:
        names = [keys.step_lease(f"batch_{n}", "plan") for n in range(16)]
        await asyncio.gather(*(state.run(leases.take(name, "w", 60)) for name in names))
        way.forget()
        with pytest.raises(StateUnavailableError):
            await state.run(leases.beat("w", 60))
        assert await state.run(leases.beat("w", 60))


async def test_patience_outlasts_a_server_that_loads_its_data(loading: str) -> None:
    state, create = State(loading), batches.create(batch_object())
    with pytest.raises(StateUnavailableError, match="loading"):
        await state.run(create)
    assert await asyncio.wait_for(patiently(lambda: state.run(create)), BOUND_S)
    await state.aclose()


async def test_a_wrong_password_is_a_fault_not_a_server_that_is_away(own: EmbeddedValkey, own_fleet: State) -> None:
    with redis.Redis.from_url(own.url) as operator:
        operator.config_set("requirepass", "secret")
        with pytest.raises(StateError):
            await own_fleet.run(batches.read("batch_none"))
