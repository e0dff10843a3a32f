"""The rule that finds how many requests at once a provider makes the best use of. Pure: no I/O, no clock of its own.

A hill climb on goodput. Every change of the limit is a trial: it stands only if the provider then does more work a
second. How much it does follows from how fast one request is (Little's law), so that the rule needs no more than
latencies. What it takes from others:

- growth by doubling until the throughput stops to follow: BBR's startup (draft-cardwell-iccrg-bbr, "full pipe");
- after a refusal to stay just below where it came, and to come near it again rarely: CUBIC's plateau (RFC 9438);
- no judgement while the limit is not used: as in Netflix' concurrency-limits, and RFC 7661.

A growing latency alone is no reason to shrink: the requests may have become longer. It is a reason to try.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from batchord.state.concurrency import Sample

START: Final = 16
"""The first limit, where nothing is known of a provider."""
_IDLE_S: Final = 60.0
"""After so long without an answer the last limit is half believed."""

_RISE: Final = 2.0
_FINE: Final = 1.25
_FINEST: Final = 1.08
"""By what the limit grows: while nothing speaks against it, after growth brought nothing, and after a refusal.

What the last brings is too little to be told from chance: but for another refusal it stands, and the next is larger.
"""
_FALL: Final = 0.8
_REAL_RISE: Final = 1.5

_FULL: Final = 0.7
_WORTH: Final = 0.1
"""Which share of the growth the throughput must follow: to grow faster, and to grow at all.

A server that slows down in proportion to its load is at 90 % of its most where it follows a tenth of a growth.
"""
_WORTH_RISING: Final = 0.15
_SURE: Final = 3
"""How many times as many answers end the rise as go on with it: a wrong end costs more."""
_QUEUEING: Final = 0.75
"""How fast requests are that do not wait, as a share of how fast they were at best."""
_FADING: Final = 0.995

_IN_USE: Final = 0.8
_MARGIN: Final = 0.95
"""How far below a refusal the limit stays."""
_LEAST_CUT: Final = 0.85
_MOST_CUT: Final = 0.5
_FAILING_CUT: Final = 0.7
_FAILING: Final = 0.02
_FAILING_BESIDE: Final = 100
"""Which share of failures is more than chance, beside how many answers that went well before."""

_HOLD_S: Final = 5.0
_LONGEST_HOLD_S: Final = 120.0
_CALM_S: Final = 1.0
"""For how long at least a provider's troubles are still those of before the last cut."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Where the search stands: `limit` is in force, and `base` the last one that proved its worth.

    While they differ, a trial is under way. Speeds are work a second and permit: `speed` at `base` (0 until measured),
    `best` without a queue, which fades. `peak` was the limit at the last refusal, and `floor` is as
    far as that may lower it. `usual` is which share of the requests fails however few are sent at once.
    """

    limit: int = START
    base: int = START
    speed: float = 0.0
    best: float = 0.0
    may_fall: bool = False
    latency_s: float = 0.0
    step: float = _RISE
    hold_s: float = 0.0
    hold_until: float = 0.0
    calm_until: float = 0.0
    peak: int = 0
    floor: int = 0
    usual: float = 0.0
    measure_from: float = 0.0
    at: float = 0.0
    window: Sample = Sample()


def advance(course: Course, sample: Sample, now: float, most: int) -> Course:
    """Give the course after one more sample of the whole fleet; `now` is of any one clock, in seconds."""
    if not course.at or not 0 <= now - course.at <= _IDLE_S:  # Redis' clock may have been set back
        course = Course(limit=max(START, course.limit // 2), base=max(START, course.limit // 2))
        course = _with(course, limit=min(course.limit, most), base=min(course.base, most))
    is_measured = course.at >= course.measure_from
    window = course.window.plus(sample) if is_measured else sample
    if now < course.calm_until:
        return _refined(_with(course, at=now), sample)
    if _is_overloaded(course, window):
        is_refused = window.throttled or window.kept < 1 or course.limit > course.base
        return _back_off(course, sample, now) if is_refused else _try_less(course, window, now)
    course = _with(course, at=now, window=window if is_measured else Sample())
    return _judge(course, most) if _ended(course.window) >= _enough(course) else course


def _with(course: Course, **changes: object) -> Course:
    return msgspec.structs.replace(course, **changes)


def _ended(sample: Sample) -> int:
    return sample.answers + sample.troubled


def _enough(course: Course) -> int:
    """Give how many answers a judgement needs: fine differences need more."""
    is_rising = course.step >= _REAL_RISE
    return max(32, course.limit // 2) if is_rising else max(100, 2 * course.limit)


def _judge(course: Course, most: int) -> Course:
    window, undecided, course = course.window, course, _with(course, window=Sample())
    if window.busy_s < _IN_USE * window.room_s or not window.latency_s:
        return course
    speed, latency_s = window.work / window.latency_s, window.latency_s / _ended(window)
    course = _with(course, usual=min(course.usual, 0.9 * course.usual + 0.1 * window.troubled / _ended(window)))
    if course.limit == course.base:
        measured = _with(course, speed=speed, best=max(_FADING * course.best, speed), latency_s=latency_s)
        return _try(measured, most) if course.at >= course.hold_until else measured
    growth = course.limit / course.base
    followed = 1 + math.log(speed / course.speed) / math.log(growth) if speed and course.speed else 0.0
    if course.step >= _REAL_RISE and followed < _WORTH_RISING and _ended(window) < _SURE * _enough(course):
        return undecided
    course = _with(course, latency_s=latency_s)
    if growth > 1:
        return _after_growth(course, speed, followed, most)
    course = _with(course, usual=max(course.usual, window.troubled / _ended(window)))
    return _after_fall(course, speed, followed, most)


def _try(course: Course, most: int) -> Course:
    """Begin a trial: of less where requests seem to wait for each other, else of more."""
    if course.may_fall and course.speed < _QUEUEING * course.best and course.base > 1:
        limit = max(1, int(course.base * _FALL))
    else:
        limit = min(most, max(course.base + 1, round(course.base * course.step)))
    return _moved(course, limit) if limit != course.base else _held(_with(course, may_fall=True), 2)


def _moved(course: Course, limit: int) -> Course:
    """Change the limit; nothing is measured before the requests of the former one have ended."""
    return _with(course, limit=limit, measure_from=course.at + 1.5 * course.latency_s, window=Sample())


def _held(course: Course, longer: float) -> Course:
    hold_s = min(_LONGEST_HOLD_S, max(_HOLD_S, longer * course.hold_s))
    return _with(course, hold_s=hold_s, hold_until=course.at + max(hold_s, 3 * course.latency_s))


def _after_growth(course: Course, speed: float, followed: float, most: int) -> Course:
    is_rising, is_fine = course.step >= _REAL_RISE, course.step < _FINE
    if is_fine or followed >= (_WORTH_RISING if is_rising else _WORTH):
        step = min(_RISE, course.step**1.5) if is_fine or followed >= _FULL else course.step
        return _try(_with(course, base=course.limit, speed=speed, step=step, hold_s=0.0, may_fall=False), most)
    limit = round(math.sqrt(course.base * course.limit)) if is_rising else course.base
    course = _with(course, base=limit, step=min(course.step, _FINE), may_fall=True)
    return _held(_moved(course, limit), 2)


def _after_fall(course: Course, speed: float, followed: float, most: int) -> Course:
    course = _with(course, step=min(course.step, _FINE))
    if followed <= _WORTH / 2:
        course = _with(course, base=course.limit, speed=speed)
        return _try(course, most) if course.may_fall else _held(_with(course, usual=0.0), 1)
    return _held(_moved(_with(course, may_fall=False), course.base), 2)


def _is_overloaded(course: Course, sample: Sample) -> bool:
    """Whether the provider has too much: by a 429 always, by failures if they are more than chance, and than usual."""
    if sample.throttled:
        return True
    if course.limit < course.base and sample.kept == 1:
        return False  # whether less mends it is being tried
    tolerated = _FAILING * (sample.answers + _FAILING_BESIDE) + 2 * course.usual * _ended(sample)
    return sample.troubled > tolerated


def _try_less(course: Course, window: Sample, now: float) -> Course:
    """Begin a trial of less, as answers fail: where that brings less work, it was not the load that they failed of."""
    speed = window.work / window.latency_s if window.latency_s else 0.0
    course = _with(course, at=now, speed=speed, may_fall=False, step=_FINEST, window=Sample())
    return _moved(course, max(1, int(_FAILING_CUT * course.base)))


def _back_off(course: Course, sample: Sample, now: float) -> Course:
    limit, is_trial = course.limit, course.limit > course.base
    kept = limit * (_MARGIN * sample.kept if sample.kept < 1 else _FAILING_CUT)
    most, least = (limit, course.base) if is_trial else (_LEAST_CUT * limit, max(1, _MOST_CUT * limit))
    cut = int(max(least, min(most, kept)))
    calm_s = max(_CALM_S, 2 * course.latency_s)
    changes = {"base": cut, "step": _FINEST, "calm_until": now + calm_s, "peak": limit, "floor": int(least)}
    return _held(_moved(_with(course, at=now, **changes), cut), 4 if is_trial else 1)


def _refined(course: Course, sample: Sample) -> Course:
    """Give the course after other workers have told of the refusals that led to the last cut."""
    kept = max(course.floor, int(_MARGIN * sample.kept * course.peak))
    return _with(course, limit=kept, base=kept) if sample.kept < 1 and kept < course.limit else course
