"""One batch as a state machine: whatever happens to it, in whatever order, its counts are true and it leaves no key.

The machine keeps the plain facts (which lines were recorded, who was told to send what), says what each call must
answer by them, and compares what a reader sees after each step.
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
from batchord.state.shards import LineRecord, OpenShard, Verdict
from tests.unit.fake_state import (
    CREATED_AT,
    FakeState,
    batch_object,
    contents,
    fields,
    is_documented,
    key_names,
    record_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchord.state.calls import Argument, Call
    from batchord.state.connection import BlockingState

CLAIM_S: Final = 30
PROVIDERS: Final = ("a", "b")
SHARDS_MOST: Final = 3
GHOSTS_MOST: Final = 3
PATIENCE: Final = 12
"""Calls before anybody may cancel or end the batch: else too many runs would be about a batch that has ended."""
FAST: Final = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

PLANS: Final = st.fixed_dictionaries(
    {provider: st.lists(st.integers(1, 4), min_size=1, max_size=SHARDS_MOST) for provider in PROVIDERS}
)
DEEDS: Final = st.sampled_from(["begin", "begin", "begin", "begin", "release", "release", *Outcome])
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
    until: dict[str, int] = field(default_factory=dict)


class BatchMachine(RuleBasedStateMachine):
    """One batch of two providers, three workers, and what may happen to them."""

    connect: Callable[[], BlockingState] = FakeState

    def __init__(self) -> None:
        super().__init__()
        self.state = type(self).connect()
        self.now = CREATED_AT
        self.path: list[Status] = []
        self.plan: dict[str, list[int]] = {}
        self.opened: Counter[str] = Counter()
        self.open: dict[Shard, Open] = {}
        self.recorded: list[LineRecord] = []
        self.counted: Counter[Outcome] = Counter()
        self.round = 0
        self.former: tuple[list[Status], int] = ([], 0)
        self.workers = ["w0", "w1", "w2"]
        self.ghosts: list[str] = []
        self.sending: dict[str, set[tuple[Shard, int]]] = {worker: set() for worker in self.workers}
        self.again: Call[Any] | None = None
        self.calls = 0

    @initialize(
        plan=st.none() | PLANS | PLANS | PLANS,
        window=st.integers(1, 6),
        life_s=st.sampled_from([20, 40, 120, 600]),
        ended_rounds=st.sampled_from([0, 0, 1, 2]),
    )
    def create(self, plan: dict[str, list[int]] | None, window: int, life_s: int, ended_rounds: int) -> None:
        """Create the batch, which mostly has open shards from the beginning, maybe those of a later round."""
        self.window, self.deadline = window, CREATED_AT + life_s
        self.batch = batch_object(expires_at=self.deadline)
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
        started = self.do(batches.start(self.batch.id, self.now, counters, plan, self.round))
        assert started is (self.status is Status.VALIDATING)
        if started:
            self.path.append(Status.IN_PROGRESS)
            self.plan, self.kept = plan, kept
            self.counted = Counter({Outcome.SUCCEEDED: kept})

    @rule(life_s=st.integers(20, 120))
    @precondition(lambda self: self.status.is_terminal)
    def retry(self, life_s: int) -> None:
        """Ask for another round, which leaves what the one before showed, to be shown again by a withdrawal."""
        deadline, move = self.now + life_s, to(Status.VALIDATING)
        moved = self.do(rounds.retry(self.seen, deadline, f"selection-{self.calls}"))
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
        assert self.do(shards.open_next(self.batch.id, provider, self.now, self.window)) == expected
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
        until = self.now + CLAIM_S
        expected = [self.expect(worker, shard, index, until) for index in indices]
        assert self.do(shards.begin(shard, worker, self.now, until, indices)) == expected

    def expect(self, worker: str, shard: Shard, index: int, until: int) -> Verdict:
        """Give the verdict that must come, and note the claim."""
        known = self.open.get(shard)
        if known is None or index in known.outcomes:
            return Verdict.RECORDED
        owner = known.owner.get(index, worker)
        if owner != worker and known.until[owner] > self.now:
            return Verdict.CLAIMED
        if not self.runs:
            return Verdict.CANCELLED if self.status is Status.CANCELLING else Verdict.EXPIRED
        known.owner[index], known.until[worker] = worker, until
        self.sending[worker].add((shard, index))
        return Verdict.SEND

    def record(self, worker: str, shard: Shard, records: list[LineRecord]) -> None:
        assert self.do(shards.record(shard, self.now, records)) == self.note(shard, records)
        self.sending[worker] -= {(shard, record.index) for record in records}

    def note(self, shard: Shard, records: list[LineRecord]) -> int:
        """Note what is new among these records; how many that are."""
        known = self.open.get(shard, Open(0))
        new = {record.index: record for record in records if shard in self.open and record.index not in known.outcomes}
        known.outcomes |= new
        self.recorded += new.values()
        self.counted.update(record.outcome for record in new.values())
        for index in new:
            known.owner.pop(index, None)
        return len(new)

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
            self.record(self.workers[0], shard, [LineRecord(i, Outcome.SUCCEEDED, b"{}") for i in range(known.lines)])
        is_complete = known is not None and len(known.outcomes) == known.lines
        assert self.do(shards.seal(shard, 0)) is is_complete
        if is_complete:
            del self.open[shard]

    @rule(steps=st.integers(0, 2), dies=st.none() | st.integers(0, 2))
    def pass_time(self, steps: int, dies: int | None) -> None:
        """Let time pass in steps, before each of which the living prolong their claims; two end those of the dead.

        Another takes the place of one that dies; if it was only stopped, it may act much later.
        """
        if dies is not None and len(self.ghosts) < GHOSTS_MOST:
            self.ghosts.append(self.workers[dies])
            self.workers[dies] += "+"
            self.sending[self.workers[dies]] = set()
        for _ in range(steps):
            for worker in self.workers:
                self.renew(worker)
            self.now += CLAIM_S * 2 // 3
        self.again = None  # it would be said with the time of before

    def renew(self, worker: str) -> None:
        until = self.now + CLAIM_S
        for shard in {shard for shard, _ in self.sending[worker]}:
            assert self.do(shards.renew(shard, worker, until)) is (shard in self.open)
            if shard in self.open:
                self.open[shard].until[worker] = until

    @rule(status=st.sampled_from([Status.CANCELLING, Status.FINALIZING, Status.FAILED]))
    @precondition(lambda self: self.calls > PATIENCE)
    def move(self, status: Status) -> None:
        moved = self.do(batches.transition(self.batch.id, to(status), self.now, {"ended_ms": self.now}))
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
        """Say again what was said last, for its answer may have been lost."""
        assert self.again is not None
        before = contents(self.state)
        self.state.run(self.again)
        assert contents(self.state) == before

    @rule(shard=SHARDS)
    def look(self, shard: Shard) -> None:
        """Compare what a reader learns of a shard with what is known of it."""
        known = self.open.get(shard, Open(0))
        unsent = [i for i in range(known.lines) if i not in known.outcomes]
        unsent = [i for i in unsent if i not in known.owner or known.until[known.owner[i]] <= self.now]
        kept = [known.outcomes.get(index) for index in range(known.lines)]
        assert self.state.run(shards.missing(shard, self.now)) == unsent
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
        before = contents(self.state)
        for shard in (Shard(self.batch.id, provider, 0) for provider in PROVIDERS):
            self.record("w0", shard, [LineRecord(0, Outcome.FAILED, b"{}", 1, Usage(1, 1, 1, 1, 1))])
            self.begin("w0", shard, [0])
            assert not self.state.run(shards.renew(shard, "w0", self.now))
            self.state.run(shards.touch(shard, self.now))
            self.seal(shard, is_finished=False)
        self.start({"a": [1], "b": [1]})
        assert not self.state.run(rounds.withdraw(self.batch.id, self.round))
        self.move(Status.CANCELLING)
        assert contents(self.state) == before

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
