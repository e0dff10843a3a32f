"""One batch as a state machine: whatever happens to it, in whatever order, its counts are true and it leaves no key.

The machine keeps the plain facts (which lines were recorded, who was told to send what, who was in touch with Redis
when), says what each call must answer by them, and compares what a reader sees after each step.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from batchord.contract import Usage
from batchord.lifecycle import NEXT, Outcome, Status, ending, to
from batchord.state import analytics, batches, keys, rounds, shards
from batchord.state.keys import ROUND_SHARDS, Shard
from batchord.state.shards import Contact, LineRecord, OpenShard, Verdict
from tests.unit.fake_state import (
    CLAIM_S,
    CREATED_AT,
    FakeState,
    batch_object,
    contents,
    fields,
    is_documented,
    key_names,
    pass_time,
    record_of,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchord.state.calls import Argument, Call
    from batchord.state.connection import BlockingState

TICK_S: Final = CLAIM_S // 4
"""The step in which time passes; what must be told apart is half a step apart, which no test lasts for."""
PROVIDERS: Final = ("a", "b")
SHARDS_MOST: Final = 3
GHOSTS_MOST: Final = 9
PATIENCE: Final = 12
"""Calls before anybody may cancel or end the batch: else too many runs would be about a batch that has ended."""
FAST: Final = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

PLANS: Final = st.fixed_dictionaries(
    {provider: st.lists(st.integers(1, 4), min_size=1, max_size=SHARDS_MOST) for provider in PROVIDERS}
)
DEEDS: Final = st.sampled_from(["begin", "begin", "begin", "begin", "release", "release", *Outcome])
ANSWERED: Final = (Outcome.SUCCEEDED, Outcome.FAILED)
# These look at the machine, so that most of what is drawn meets an open shard.
SHARDS: Final = st.runner().flatmap(lambda machine: st.sampled_from(machine.some_shards()))
WORKERS: Final = st.runner().flatmap(lambda machine: st.sampled_from(machine.workers + machine.ghosts))
LINES: Final = SHARDS.flatmap(
    lambda shard: st.tuples(st.just(shard), st.lists(st.integers(0, 3), min_size=1, max_size=4))
)


@dataclass
class Open:
    """What is known of an open shard."""

    lines: int
    outcomes: dict[int, LineRecord] = field(default_factory=dict)
    owner: dict[int, str] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)
    strikes: Counter[int] = field(default_factory=Counter)


class BatchMachine(RuleBasedStateMachine):
    """One batch of two providers, three workers, and what may happen to them."""

    connect: Callable[[], BlockingState] = FakeState

    def __init__(self) -> None:
        super().__init__()
        self.state = type(self).connect()
        self.began, self.now = 0.0, 0.0
        self.path: list[Status] = []
        self.plan: dict[str, list[int]] = {}
        self.opened: Counter[str] = Counter()
        self.open: dict[Shard, Open] = {}
        self.recorded: list[LineRecord] = []
        self.counted: Counter[Outcome] = Counter()
        self.round = 0
        self.former: tuple[list[Status], float] = ([], 0)
        self.workers = ["w0", "w1", "w2"]
        self.ghosts: list[str] = []
        self.sending: dict[str, set[tuple[Shard, int]]] = {worker: set() for worker in self.workers}
        self.contact: dict[str, Contact] = dict.fromkeys(self.workers, Contact(-9 * CLAIM_S, 0))
        self.late = 0
        self.again: Call[Any] | None = None
        self.calls = 0

    @initialize(
        plan=st.none() | PLANS | PLANS | PLANS,
        window=st.integers(1, 6),
        life_s=st.sampled_from([2.5, 20.5, 80.5, 400.5]).map(lambda ticks: int(ticks * TICK_S)),
        ended_rounds=st.sampled_from([0, 0, 1, 2]),
    )
    def create(self, plan: dict[str, list[int]] | None, window: int, life_s: int, ended_rounds: int) -> None:
        """Create the batch, which mostly has open shards from the beginning, maybe those of a later round."""
        self.began = time_of(self.state)
        self.window, self.deadline = window, float(life_s)
        self.batch = batch_object(expires_at=int(self.by_redis(self.deadline)))
        assert self.do(batches.create(self.batch))
        self.path.append(Status.VALIDATING)
        for _ in range(ended_rounds if plan else 0):
            self.start(plan or {})
            self.open_next(PROVIDERS[0])
            self.end()
            self.retry(life_s)
        if plan:
            self.start(plan)
            for provider in PROVIDERS:
                self.open_next(provider)

    @rule(plan=PLANS)
    def start(self, plan: dict[str, list[int]]) -> None:
        kept = self.counted[Outcome.SUCCEEDED]
        counters: dict[str, Argument] = {"completed": kept, "failed": 0, "cancelled": 0, "expired": 0}
        counters["total"] = kept + sum(map(sum, plan.values()))
        started = self.do(batches.start(self.batch.id, CREATED_AT, counters, plan, self.round))
        assert started is (self.status is Status.VALIDATING)
        if started:
            self.path.append(Status.IN_PROGRESS)
            self.plan, self.kept = plan, kept
            self.counted = Counter({Outcome.SUCCEEDED: kept})

    @rule(life_s=st.sampled_from([1.5, 2.5, 8.5]).map(lambda ticks: int(ticks * TICK_S)))
    @precondition(lambda self: self.status.is_terminal)
    def retry(self, life_s: int) -> None:
        """Ask for another round, which leaves what the one before showed, to be shown again by a withdrawal."""
        deadline, move = self.now + life_s, to(Status.VALIDATING)
        moved = self.do(rounds.retry(self.seen, int(self.by_redis(deadline)), f"selection-{self.calls}"))
        assert moved is (self.status in move.sources)
        if moved:
            self.former = (self.path, self.deadline)
            self.path, self.deadline, self.plan = [Status.VALIDATING], deadline, {}
            self.opened.clear()
            self.round += 1

    @rule()
    @precondition(lambda self: self.round)
    def withdraw(self) -> None:
        withdrawn = self.do(rounds.withdraw(self.batch.id, self.round))
        assert withdrawn is (self.status is Status.VALIDATING)
        if withdrawn:
            self.path, self.deadline = self.former

    @rule(provider=st.sampled_from(PROVIDERS))
    @precondition(lambda self: self.plan)
    def open_next(self, provider: str) -> None:
        opened, is_open = self.opened[provider], self.open_lines(provider)
        number, planned = self.first + opened, self.plan[provider][opened : opened + 1]
        fits = planned and (not is_open or is_open + planned[0] <= self.window)
        expected = (number, planned[0]) if fits and self.runs else None
        assert self.do(shards.open_next(self.batch.id, provider, self.window)) == expected
        self.again = None  # it would open the next one
        if expected:
            self.opened[provider] += 1
            self.open[Shard(self.batch.id, provider, number)] = Open(planned[0])

    @rule(deeds=st.lists(st.tuples(DEEDS, WORKERS, LINES), min_size=1, max_size=5))
    def work(self, deeds: list[tuple[Outcome | str, str, tuple[Shard, list[int]]]]) -> None:
        """Let workers begin, release or record lines, whether they claimed them or not."""
        for deed, worker, (shard, drawn) in deeds:
            indices = [index for index in drawn if index < self.open.get(shard, Open(4)).lines]
            if isinstance(deed, Outcome):
                self.record(worker, shard, [LineRecord(i, deed, b"{}", i, Usage(i, 2, 3, 4, 5)) for i in indices])
            elif deed == "release":
                self.release(worker, shard, indices)
            else:
                self.begin(worker, shard, indices)

    def begin(self, worker: str, shard: Shard, indices: list[int]) -> None:
        expected = [self.expect(worker, shard, index) for index in indices]
        contact = Contact(*map(self.by_redis, self.contact[worker]))
        assert self.do(shards.begin(shard, worker, CLAIM_S, contact, indices)) == expected

    def expect(self, worker: str, shard: Shard, index: int) -> Verdict:
        """Give the verdict that must come, and note the claim."""
        known = self.open.get(shard)
        if known is None or index in known.outcomes:
            return Verdict.RECORDED
        if self.is_others(known, worker, index) and not self.is_free(known, worker, index):
            return Verdict.CLAIMED if self.is_alive(known, known.owner[index]) else Verdict.UNSURE
        if not self.runs:
            return Verdict.CANCELLED if self.status is Status.CANCELLING else Verdict.EXPIRED
        known.strikes[index] += self.is_others(known, worker, index)
        known.owner[index], known.said[worker] = worker, self.now
        self.sending[worker].add((shard, index))
        if known.strikes[index] >= 5:
            return Verdict.POISONED
        return Verdict.SUSPECT if known.strikes[index] >= 2 else Verdict.SEND

    def is_others(self, known: Open, worker: str, index: int) -> bool:
        return known.owner.get(index, worker) != worker

    def is_alive(self, known: Open, worker: str) -> bool:
        return self.now - known.said[worker] < CLAIM_S

    def is_free(self, known: Open, worker: str, index: int) -> bool:
        """Whether a worker may take a line for one that nobody sends."""
        since, until = self.contact[worker]
        may_judge = self.now - since >= CLAIM_S and self.now - until <= CLAIM_S / 3
        return index not in known.owner or (may_judge and not self.is_alive(known, known.owner[index]))

    def record(self, worker: str, shard: Shard, records: list[LineRecord]) -> None:
        assert self.do(shards.record(shard, worker, CLAIM_S, records)) == self.note(worker, shard, records)
        self.sending[worker] -= {(shard, record.index) for record in records}

    def note(self, worker: str, shard: Shard, records: list[LineRecord]) -> int:
        """Note these records one by one; how many are new."""
        before = len(self.recorded)
        for record in records:
            known = self.open.get(shard, Open(0))
            is_fenced = self.is_others(known, worker, record.index) and self.is_alive(known, known.owner[record.index])
            if shard in self.open and record.index not in known.outcomes and not is_fenced:
                known.outcomes[record.index] = record
                known.owner.pop(record.index, None)
                self.recorded.append(record)
                self.counted[record.outcome] += 1
            elif record.outcome in ANSWERED and not self.is_same(known.outcomes.get(record.index), record):
                self.late += 1
        return len(self.recorded) - before

    def is_same(self, kept: LineRecord | None, record: LineRecord) -> bool:
        return kept is not None and kept.words()[1] == record.words()[1]

    def release(self, worker: str, shard: Shard, indices: list[int]) -> None:
        owner = self.open[shard].owner if shard in self.open else {}
        own = {index for index in indices if owner.get(index) == worker}
        assert self.do(shards.release(shard, worker, indices)) == len(own)
        for index in own:
            del owner[index]
        self.sending[worker] -= {(shard, index) for index in indices}

    @rule(shard=SHARDS, is_finished=st.booleans())
    def seal(self, shard: Shard, *, is_finished: bool) -> None:
        """Seal a shard, which most often is refused unless its last lines are recorded before."""
        known = self.open.get(shard)
        if known and is_finished:
            for index in range(known.lines):
                worker = known.owner.get(index, self.workers[0])
                self.record(worker, shard, [LineRecord(index, Outcome.SUCCEEDED, b"{}")])
        is_complete = known is not None and len(known.outcomes) == known.lines
        assert self.do(shards.seal(shard, 0)) is is_complete
        if is_complete:
            del self.open[shard]

    @rule(ticks=st.integers(0, 6), dies=st.none() | st.integers(0, 2))
    def pass_time(self, ticks: int, dies: int | None) -> None:
        """Let time pass in ticks, after each of which the living prolong their claims; four end those of the dead.

        Another takes the place of one that dies; if it was only stopped, it may act much later.
        """
        if dies is not None and len(self.ghosts) < GHOSTS_MOST:
            self.ghosts.append(self.workers[dies])
            self.workers[dies] += "+"
            self.sending[self.workers[dies]] = set()
            self.contact[self.workers[dies]] = Contact(self.now, self.now)
        self.live(ticks)

    @rule(dies=st.integers(0, 2), heir=st.integers(0, 2), ticks=st.integers(3, 5), lines=LINES)
    @precondition(lambda self: self.open)
    def die_sending(self, dies: int, heir: int, ticks: int, lines: tuple[Shard, list[int]]) -> None:
        """Have a worker die while it sends lines, and another begin them, mostly when the claim is over."""
        self.work([("begin", self.workers[dies], lines)])
        self.pass_time(ticks, dies)
        self.look(lines[0])
        self.work([("begin", self.workers[heir], lines)])

    def live(self, ticks: int) -> None:
        for _ in range(ticks):
            self.let_pass(TICK_S)
            for worker in self.workers:
                self.beat(worker)

    @rule(ticks=st.integers(1, 9), first=st.integers(0, 2), lines=LINES)
    def outage(self, ticks: int, first: int, lines: tuple[Shard, list[int]]) -> None:
        """Let Redis be away; when it is back, one worker is there first, and the others a little later."""
        self.work([("begin", self.workers[first - 1], lines)])
        self.let_pass(ticks * TICK_S)
        for _ in range(2):
            self.look(lines[0])
            self.work([("begin", self.workers[first], lines)])
            self.beat(self.workers[first])
        for worker in self.workers:
            self.beat(worker)

    def let_pass(self, seconds: float) -> None:
        pass_time(self.state, seconds)
        self.now += seconds
        self.again = None  # it would be said with the times of before

    def beat(self, worker: str) -> None:
        for shard in {shard for shard, _ in self.sending[worker]}:
            assert self.do(shards.renew(shard, worker)) is (shard in self.open)
            if shard in self.open:
                self.open[shard].said[worker] = self.now
        self.contact[worker] = self.contact[worker].prolonged(self.now, CLAIM_S)

    @rule(status=st.sampled_from([Status.CANCELLING, Status.FINALIZING, Status.FAILED]))
    @precondition(lambda self: self.calls > PATIENCE)
    def move(self, status: Status) -> None:
        moved = self.do(batches.transition(self.batch.id, to(status), CREATED_AT, {"ended_ms": CREATED_AT}))
        assert moved is (status in NEXT[self.status])
        if moved:
            self.path.append(status)

    @rule()
    @precondition(lambda self: self.calls > PATIENCE and not self.open)
    def conclude(self) -> None:
        """End the batch as finalize does: once no shard is open, for in its statuses none opens any more."""
        self.move(ending(self.status, has_expired=self.counted[Outcome.EXPIRED] > 0))

    @rule()
    @precondition(lambda self: self.again)
    def repeat(self) -> None:
        """Say again what was said last, for its answer may have been lost. What is late may count as late twice."""
        assert self.again is not None
        before = self.facts()
        self.state.run(self.again)
        assert self.facts() == before
        self.hash = fields(self.state, keys.batch(self.batch.id))
        self.late = int(self.hash.get("late", 0))

    @rule(shard=SHARDS)
    def look(self, shard: Shard) -> None:
        """Compare what a reader learns of a shard with what is known of it."""
        known = self.open.get(shard, Open(0))
        for worker in self.workers:
            unsent = [i for i in range(known.lines) if i not in known.outcomes and self.is_free(known, worker, i)]
            contact = Contact(*map(self.by_redis, self.contact[worker]))
            assert self.state.run(shards.missing(shard, CLAIM_S, contact)) == (unsent, self.runs)
        kept = [known.outcomes.get(index) for index in range(known.lines)]
        progress = OpenShard(known.lines, len(known.outcomes)) if shard in self.open else None
        assert self.state.run(shards.progress(shard)) == progress
        if shard in self.open:
            assert self.state.run(shards.outcomes(shard, range(known.lines))) == [r and r.words()[1] for r in kept]

    @invariant()
    @precondition(lambda self: self.path)
    def counters_tell_what_was_recorded(self) -> None:
        record, counted = self.seen, self.counted
        counts = record.batch.request_counts
        numbers = (counts.completed, counts.failed, record.cancelled_lines, record.expired_lines)
        assert dict(zip(Outcome, numbers, strict=True)) == {outcome: counted[outcome] for outcome in Outcome}
        assert record.recorded <= counts.total
        assert not self.plan or counts.total == self.kept + sum(map(sum, self.plan.values()))
        assert int(self.hash.get("late", 0)) == self.late
        assert record.retries == sum(record.retries for record in self.recorded)
        assert record.batch.usage == Usage(*map(sum, zip(*(astuple(r.usage) for r in self.recorded), strict=True)))

    @invariant()
    @precondition(lambda self: self.plan)
    def the_analytics_add_up_to_the_usage(self) -> None:
        tallies = self.state.run(analytics.read(self.batch.id)).values()
        assert sum(tally.counts["total_tokens"] for tally in tallies) == self.seen.batch.usage.total_tokens

    @invariant()
    @precondition(lambda self: self.plan)
    def the_window_is_kept(self) -> None:
        for provider in PROVIDERS:
            assert int(self.hash[f"open_lines:{provider}"]) == self.open_lines(provider)
            assert self.seen.shards[provider] == batches.ShardCounts(
                self.first + len(self.plan[provider]),
                self.first + self.opened[provider],
                self.open_lines(provider),
                self.first,
            )
            several = len([shard for shard in self.open if shard.provider == provider]) > 1
            assert self.open_lines(provider) <= self.window or not several

    @invariant()
    @precondition(lambda self: self.path)
    def the_batch_shows_the_way_that_it_went(self) -> None:
        assert self.seen.batch.status is self.status
        assert all(target in NEXT[source] for source, target in pairwise(self.path))
        stamps = {name for name in self.hash if name.endswith("_at") and not name.startswith("former:")}
        stamped = stamps - {"created_at", "expires_at"}
        assert stamped == {to(status).stamp for status in self.path[1:]}

    @invariant()
    def no_two_living_workers_send_the_same_line(self) -> None:
        for one, other in combinations(self.workers, 2):
            assert not self.sending[one] & self.sending[other]

    @invariant()
    @precondition(lambda self: self.path)
    def every_key_is_documented_and_belongs_to_something_open(self) -> None:
        assert all(is_documented(name) for name in self.names)
        per_shard = {name for name in self.names if name.rsplit(":", 1)[-1].isdigit()}
        assert per_shard <= {name for shard in self.open for name in shards._shard_keys(shard)}
        assert per_shard >= {keys.shard(shard) for shard in self.open}

    def teardown(self) -> None:
        """Bring the batch to its end: then its hash and its analytics are left, and nothing late leaves a trace."""
        if not self.path:
            return
        self.end()
        if self.plan:
            assert self.do(rounds.free(self.seen))
        assert key_names(self.state) - {keys.analytics(self.batch.id)} == {keys.batch(self.batch.id)}
        self.come_late()

    def end(self) -> None:
        for shard in list(self.open):
            self.look(shard)
            self.seal(shard, is_finished=True)
        for status in (Status.FAILED, Status.FINALIZING):
            self.move(status)
        self.conclude()
        assert self.status.is_terminal

    def come_late(self) -> None:
        """Do everything once more, too late."""
        before = self.facts()
        for shard in (Shard(self.batch.id, provider, 0) for provider in PROVIDERS):
            self.record("w0", shard, [LineRecord(0, Outcome.FAILED, b"{}", 1, Usage(1, 1, 1, 1, 1))])
            self.begin("w0", shard, [0])
            assert not self.state.run(shards.renew(shard, "w0"))
            self.state.run_all([shards.touch(shard), shards.hurry(shard)])
            self.seal(shard, is_finished=False)
        self.start({"a": [1], "b": [1]})
        assert not self.state.run(rounds.withdraw(self.batch.id, self.round))
        self.move(Status.CANCELLING)
        assert self.facts() == before

    def facts(self) -> dict[str, Any]:
        """Give all that the server keeps but what says when, to the second, and how often something was late."""
        kept = contents(self.state)
        kept[keys.batch(self.batch.id)].pop(b"late", None)
        for name in kept:
            if ":owners:" in name:
                kept[name] = {worker: round(float(said) / TICK_S) for worker, said in kept[name].items()}
            elif ":open:" in name:
                kept[name] = [number for number, _ in kept[name]]
        return kept

    def by_redis(self, at: float) -> float:
        """Give a time of the machine by the clock of Redis; see `pass_time`."""
        return self.began + at - self.now

    def do(self, call: Call[Any]) -> Any:
        answer = self.state.run(call)
        self.again, self.calls = call, self.calls + 1
        self.seen, self.hash = record_of(self.state, self.batch.id), fields(self.state, keys.batch(self.batch.id))
        self.names = key_names(self.state)
        return answer

    @property
    def status(self) -> Status:
        return self.path[-1]

    @property
    def first(self) -> int:
        """The number of the round's first shards."""
        return self.round * ROUND_SHARDS

    @property
    def runs(self) -> bool:
        return self.status is Status.IN_PROGRESS and self.now < self.deadline

    def open_lines(self, provider: str) -> int:
        return sum(known.lines for shard, known in self.open.items() if shard.provider == provider)

    def some_shards(self) -> list[Shard]:
        """Give every shard that may have been planned, and the open ones more often."""
        numbers = [first + n for first in {0, self.first} for n in range(SHARDS_MOST)]
        planned = [Shard(self.batch.id, provider, number) for provider in PROVIDERS for number in numbers]
        return [*list(self.open) * 6, *planned]


@pytest.mark.timeout(600)  # a failure is made small before it is shown, which takes minutes
def test_a_batch_stays_true_whatever_happens_to_it() -> None:
    run_state_machine_as_test(BatchMachine, settings=FAST)
