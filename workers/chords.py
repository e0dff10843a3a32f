"""The chord of a shard: publishing its messages, and counting its parts. Not for what the tasks do, nor for results.

A chord is a set of the lines that are waited for, and a hash {q: the queue of its callback, m: the callback's message,
ready to push}. The script that takes the last line out of the set pushes the message and deletes the hash: so the
callback is published exactly when the last part is counted. Chords that others made go Celery's own way.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import msgspec
from celery.backends.redis import RedisBackend
from kombu.exceptions import OperationalError
from redis.exceptions import NoScriptError, RedisError

from batchord.broker import CONTROL_QUEUE, Step
from batchord.errors import StateUnavailableError
from batchord.state import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from celery import Celery

CHORD_TTL_S: Final = 30 * 24 * 3600
"""How long a chord lives that nobody completes or forgets: far past the longest window of a batch."""

_PUSHED_AT_ONCE: Final = 250  # so that no push holds the server for long

_GID: Final = re.compile(r"([\w-]+)/([\w-]+)/(\d+)", re.ASCII)

_OPEN: Final = """
-- KEYS waiting set, chord hash   ARGV TTL in s, queue of the callback, its message, lines to wait for
-- Returns nothing. Atomic, so that a part which comes meanwhile finds the whole chord or none.
for i = 4, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
redis.call('HSET', KEYS[2], 'q', ARGV[2], 'm', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""

_COUNT: Final = """
-- KEYS waiting set, chord hash   ARGV lines that are done
-- Returns 1 callback published, 0 lines still waited for, -1 no such chord: a late duplicate, which leaves no trace.
-- Atomic, so that the callback is published once, and not lost between the last part and its publishing.
local callback = redis.call('HMGET', KEYS[2], 'q', 'm')
if not callback[1] then return -1 end
for i = 1, #ARGV do redis.call('SREM', KEYS[1], ARGV[i]) end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('LPUSH', callback[1], callback[2])
redis.call('DEL', KEYS[2])
return 1
"""
_COUNT_SHA: Final = hashlib.sha1(_COUNT.encode(), usedforsecurity=False).hexdigest()


def is_ours(gid: object) -> bool:
    """Whether a group is a shard's chord."""
    return isinstance(gid, str) and _GID.fullmatch(gid) is not None


def chord_keys(gid: str) -> tuple[str, str]:
    """Return the keys of a shard's chord: its waiting set and its hash.

    Args:
        gid: `"<batch_id>/<provider>/<number>"`, of letters, digits, `_` and `-`.

    Raises:
        ValueError: `gid` does not look like that.
    """
    match = _GID.fullmatch(gid)
    if match is None:
        raise ValueError(f"Not a shard's chord: {gid!r}; want <batch_id>/<provider>/<number>")
    batch_id, provider, number = match.groups()
    return keys.chord(keys.Shard(batch_id, provider, int(number)))


def publish(
    app: Celery, gid: str, lines: Mapping[int, tuple[Any, ...]], queue: str, seal_args: tuple[Any, ...]
) -> None:
    """Publish lines of a shard, each as one `execute` task, and wait for them with one `seal`.

    May be repeated at any time with any lines of the shard: an open chord waits for these too, and if it has completed
    or is forgotten, a new one waits for these alone. A line counts once, however often it runs, but then `seal` may
    run once more. This blocks: call it in a thread, not on an event loop.

    Args:
        app: the Celery app; its broker keeps the chord.
        gid: see `chord_keys`.
        lines: index to the arguments of `execute`. The task ids are `f"{gid}/{index}"`.
        queue: where the lines go.
        seal_args: the arguments of `seal`, which goes to queue `control` as the task `f"{gid}/seal"`.

    Raises:
        StateUnavailableError: Redis failed, and some of the messages may be out: publish these lines again.
        ValueError: there are no lines, or `gid` is malformed.
    """
    if not lines:
        raise ValueError(f"No lines to publish for chord {gid}.")
    try:
        with app.producer_pool.acquire(block=True) as producer:
            _open(producer.channel, gid, lines, _seal_message(app, producer.channel, gid, seal_args))
            _push(producer.channel, queue, list(_line_messages(producer.channel, gid, lines, queue)))
    except (OperationalError, RedisError) as error:
        raise StateUnavailableError(f"Shard {gid} is not, or not wholly, published: {error}") from error


def _open(channel: Any, gid: str, lines: Iterable[int], callback: tuple[str, str]) -> None:
    with channel.conn_or_acquire() as client:
        client.eval(_OPEN, 2, *chord_keys(gid), CHORD_TTL_S, *callback, *lines)


def _push(channel: Any, queue: str, messages: list[bytes]) -> None:
    with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipeline:
        for start in range(0, len(messages), _PUSHED_AT_ONCE):
            pipeline.lpush(queue, *messages[start : start + _PUSHED_AT_ONCE])
        pipeline.execute()


def _line_messages(channel: Any, gid: str, lines: Mapping[int, tuple[Any, ...]], queue: str) -> Iterator[bytes]:
    """Give the messages of lines, each as the transport would write it; it does so for the first one.

    They have those headers only that a worker cannot do without: Celery's full set is as large as the rest.
    """
    headers = {"lang": "py", "task": Step.EXECUTE.value, "id": "", "group": gid, "ignore_result": True}
    embed = {"chord": {"task": Step.SEAL.value}}  # what makes Celery report the part
    _, text = _prepared(channel, "", headers, {"delivery_mode": 2}, queue)
    message = msgspec.json.decode(text)
    tag = message["properties"]["delivery_tag"]
    for index, args in lines.items():
        message["body"] = msgspec.json.encode((args, {}, embed)).decode()
        message["headers"]["id"] = f"{gid}/{index}"
        message["properties"]["delivery_tag"] = f"{tag}-{index}"
        yield msgspec.json.encode(message)


class _Capture:
    """Stands where kombu's publish batch stands, and keeps the commands instead of sending them."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def add(self, *command: str) -> None:
        self.commands.append(command)


def _seal_message(app: Celery, channel: Any, gid: str, args: tuple[Any, ...]) -> tuple[str, str]:
    """Return (queue key, message) of the callback."""
    task = app.amqp.as_task_v2(f"{gid}/seal", Step.SEAL.value, args, ignore_result=True)
    properties = {**task.properties, "delivery_mode": 2}
    body = msgspec.json.encode(task.body).decode()
    return _prepared(channel, body, task.headers, properties, CONTROL_QUEUE)


def _prepared(
    channel: Any, body: str, headers: dict[str, Any], properties: dict[str, Any], queue: str
) -> tuple[str, str]:
    """Return (queue key, message) exactly as the transport would push it."""
    message = channel.prepare_message(body, 0, "application/json", "utf-8", headers, properties)
    capture = _Capture()
    channel.basic_publish(message, exchange="", routing_key=queue, _publish_batch=capture)
    ((_, key, text),) = capture.commands
    return key, text


class Backend(RedisBackend):
    """The result backend that counts the parts of our chords itself, whatever became of a line.

    Select it by a `result_backend` of `"workers.chords.Backend+"` and a `redis://`, `rediss://` or `socket://` URL of
    the broker's server and database. One object belongs to one thread (`app.backend` sees to that).
    """

    _wake: Callable[[], None] | None = None
    _parts: list[tuple[str, str]]

    def defer_parts(self, wake: Callable[[], None]) -> None:
        """Only collect the parts from now on, for `flush_parts`; `wake` is called when a first one waits."""
        self._wake, self._parts = wake, []

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a header that returned, failed or was revoked; called by Celery."""
        if is_ours(request.group):
            self.add_part(request.group, request.id)
        else:
            super().on_chord_part_return(request, state, result, **kwargs)

    def add_part(self, gid: str, task_id: str) -> None:
        """Count a part of a chord of ours, now or with the next `flush_parts`."""
        if self._wake is None:
            self.ensure(self._count, ([(gid, task_id)],))
            return
        if not self._parts:
            self._wake()
        self._parts.append((gid, task_id))

    def flush_parts(self) -> None:
        """Count the collected parts in one round trip. If that raises they are still collected; twice is harmless."""
        parts, self._parts = self._parts, []
        if not parts:
            return
        try:
            self._count(parts)
        except BaseException:
            self._parts[:0] = parts
            raise

    def _count(self, parts: list[tuple[str, str]]) -> None:
        done: defaultdict[str, list[str]] = defaultdict(list)
        for gid, task_id in parts:
            done[gid].append(task_id.removeprefix(f"{gid}/"))
        try:
            self._send(done)
        except NoScriptError:  # the server has been restarted, or is new
            self.client.script_load(_COUNT)
            self._send(done)

    def _send(self, done: Mapping[str, list[str]]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for gid, lines in done.items():
                pipeline.evalsha(_COUNT_SHA, 2, *chord_keys(gid), *lines)
            pipeline.execute()
