"""Our kombu transport: queues fetched in groups, with slots for each queue, so that nothing is lost or run twice.

Not for publishing, remote control, events or other brokers: those stay kombu's stock Redis transport, which it extends.

One script, on the connection on which kombu would wait in BRPOP, acknowledges, fetches and registers. Until the next
fetch the server tells of new messages by the invalidations of client-side caching (CLIENT TRACKING). They are hints:
where they do not come, or are lost with a connection, the worker looks by itself.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from kombu.log import get_logger
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as stock
from kombu.utils.json import loads
from redis.exceptions import ResponseError

from workers.transport_inflight import IN_FLIGHT
from workers.transport_unacked import Unacked, script
from workers.transport_url import ALIAS

if TYPE_CHECKING:
    from collections.abc import Sequence

FETCH_LIMIT = 200
"""Most messages of one fetch: delivering them holds the event loop."""

TOLD_INTERVAL_S = 1.0
"""How long an idle worker waits before it looks by itself, where the server tells of new messages."""

UNTOLD_INTERVAL_S = 0.05
"""The same, where the server does not."""

logger = get_logger(__name__)


def install() -> None:
    """Make the URLs of `broker_settings` known to kombu."""
    TRANSPORT_ALIASES[ALIAS] = f"{__name__}:{Transport.__name__}"


class QoS(stock.QoS):
    """Acknowledges by way of the process-wide state what our fetch delivered, and as stock what BRPOP did."""

    channel: Channel

    def can_consume(self) -> bool:
        """Whether to read the connection; for our fetch always: the slots are in its arguments."""
        return self.channel.metered or bool(super().can_consume())

    def append(self, message: Any, delivery_tag: str) -> None:
        """Register a message; the fetch has done so for its own."""
        if delivery_tag not in IN_FLIGHT:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge. A task may outlive its channel; stock's messages then come back by the visibility timeout."""
        if not IN_FLIGHT.ack(delivery_tag) and not self.channel.closed:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or put it back to the head of its queue."""
        if delivery_tag not in IN_FLIGHT:
            if not self.channel.closed:
                super().reject(delivery_tag, requeue=requeue)
        elif requeue:
            self.channel.hand_back([delivery_tag])
        else:
            IN_FLIGHT.ack(delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing: the transport sweeps on its own timer."""


class Channel(stock.Channel):
    """A channel that fetches from queues with slots by our script, and from all others as stock.

    Transport option `slots`: {queue: most messages in flight in this process}. A queue without slots
    is not fetched from while a queue with slots is consumed on the same channel.
    """

    QoS = QoS
    do_restore = False  # Stock restores at each close; after a lost connection that would run everything twice.
    from_transport_options = (*stock.Channel.from_transport_options, "slots")
    slots: ClassVar[dict[str, int]] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        IN_FLIGHT.offer_slots(self.slots)
        self._prepared: Any = None
        self._fetch_sha = ""
        self._interval_s = UNTOLD_INTERVAL_S
        self._interval_runs = False
        self._wanted = True
        self._asked: tuple[list[str], list[str]] | None = None

    @property
    def metered(self) -> bool:
        """Whether this channel consumes by our fetch."""
        hub = getattr(self.connection, "hub", None)
        return hub is not None and any(IN_FLIGHT.meters(queue) for queue in self.active_queues)

    def unacked(self) -> Unacked:
        """The server's record, on a connection of the pool."""
        return Unacked(self._create_client(), self.unacked_key, self.unacked_index_key)

    def keep(self) -> None:
        """Say that what is in flight here is alive, and restore what nobody has said that of for too long."""
        unacked = self.unacked()
        acked = IN_FLIGHT.acked
        unacked.extend(acked, IN_FLIGHT.tags)
        IN_FLIGHT.confirm(acked)
        for tag in unacked.restore(unacked.expired(self.visibility_timeout), self.visibility_timeout):
            self.qos.restore_by_tag(tag)

    def hand_back(self, tags: Sequence[str]) -> None:
        """Give messages in flight back to their queues; if the channel is closed, the visibility timeout does."""
        for tag in tags:
            IN_FLIGHT.forget(tag)
        if not self.closed:
            self.unacked().restore(tags)

    def close(self) -> None:
        """Close; in order (consumers cancelled first, as a stopping worker does) it gives back what is unfinished.

        A channel closed while it consumes has lost its connection: its tasks run on, and end on another one.
        """
        if self._asked is not None:
            self._in_poll = self._asked = None  # Stock would wait for the reply.
        try:
            if self._fetch_sha and not self.closed and not self._consumers:
                acked = IN_FLIGHT.acked
                self.unacked().extend(acked, [])
                IN_FLIGHT.confirm(acked)
                self.hand_back(IN_FLIGHT.tags)
        finally:
            super().close()

    def _basic_cancel(self, consumer_tag: str) -> None:
        super()._basic_cancel(consumer_tag)
        if self._asked is not None and not self.active_queues:
            self._brpop_read()  # What the last fetch brings has no consumer now and goes straight back.

    def _on_connection_disconnect(self, connection: Any) -> None:
        if connection is self._prepared:
            self._prepared = self._asked = None
        super()._on_connection_disconnect(connection)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send a fetch, if there is a reason to; the event loop calls this in each round without a reply pending."""
        if not self.metered:
            super()._brpop_start(timeout)
        elif self._wanted or IN_FLIGHT.acked:
            self._fetch()

    def _fetch(self) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        free = [IN_FLIGHT.free(queue) for queue in queues]
        acked = IN_FLIGHT.acked
        if not acked and not any(free):
            return
        self._queue_cycle.rotate(queues[0])
        connection = self.client.connection
        if self._prepared is None:
            self._prepare(connection)
        keys = [self.unacked_key, self.unacked_index_key, *queues]
        connection.send_command("EVALSHA", self._fetch_sha, len(keys), *keys, FETCH_LIMIT, *free, *acked)
        self._in_poll, self._brpop_sent_at = connection, monotonic()
        self._asked, self._wanted = (queues, acked), False

    def _prepare(self, connection: Any) -> None:
        """Load the script and ask to be told of new messages: once for each connection, as both are lost with it.

        A script that is flushed meanwhile is an error of the channel, upon which Celery connects anew.
        """
        connection.send_command("SCRIPT", "LOAD", script("fetch"))
        self._fetch_sha = connection.read_response()
        try:
            connection.send_command("CLIENT", "TRACKING", "ON", "NOLOOP")
            connection.read_response()
            self._interval_s = TOLD_INTERVAL_S
        except ResponseError:  # Forbidden, or not known there.
            self._interval_s = UNTOLD_INTERVAL_S
        self._prepared = connection

    def _brpop_read(self, **options: Any) -> Any:
        """Read all that the connection has: the reply of the fetch, and hints of new messages in any order."""
        if self._in_poll and self._asked is None:
            return super()._brpop_read(**options)
        connection = self.client.connection
        readable = True
        while readable:
            reply = connection.read_response(push_request=True)
            if reply is None:  # A hint; no reply is ever null.
                self._wanted = True
            elif self._asked is not None:
                self._receive_fetched(reply, *self._asked)
            readable = connection.can_read(timeout=0)
        return True

    def _receive_fetched(self, reply: list[Any], queues: list[str], acked: list[str]) -> None:
        self._in_poll = self._asked = None
        self._wanted = len(reply) >= 2 * FETCH_LIMIT
        for number, raw in zip(reply[::2], reply[1::2], strict=True):
            self._receive_one_fetched(queues[number - 1], raw)
        IN_FLIGHT.confirm(acked)
        self._look_later()

    def _receive_one_fetched(self, queue: str, raw: bytes) -> None:
        try:
            message = _decode(raw)
            tag = message["properties"]["delivery_tag"]
        except (ValueError, KeyError, TypeError):
            logger.error("Dropped what is no Celery message from queue %s: %.200r", queue, raw)  # noqa: TRY400  (no bug)
            return
        if IN_FLIGHT.begin(tag, queue) and not self.connection.deliver(message, queue):
            self.hand_back([tag])

    def _look_later(self) -> None:
        """Fetch once the interval is over, whatever happens until then."""
        if not self._interval_runs:
            self._interval_runs = True
            self.connection.hub.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        self._interval_runs, self._wanted = False, True


def _decode(raw: bytes) -> Any:
    """Read a message as kombu does, and fast if it is plain JSON."""
    if b'"__type__"' not in raw:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(raw)
    return loads(raw)


class Transport(stock.Transport):
    """kombu's Redis transport with our channel."""

    Channel = Channel
    hub: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Join the event loop; from now on it keeps what is in flight alive, also while a stopping worker drains."""
        self.hub = loop
        super().register_with_event_loop(connection, loop)
        self._keep()
        visibility_s = self.client.transport_options.get("visibility_timeout", Channel.visibility_timeout)
        loop.call_repeatedly(visibility_s / 4, self._keep)

    def deliver(self, message: dict[str, Any], queue: str) -> bool:
        """Hand the message to the queue's consumer; False if it has none, any more."""
        if queue not in self._callbacks:
            return False
        self._deliver(message, queue)
        return True

    def _keep(self) -> None:
        for channel in self.channels[:1]:
            channel.keep()
