"""Which messages go the short way: those that have nothing unusual, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from celery import Celery, signals
from celery.worker import state
from kombu.transport.virtual import AbstractChannel, Message

from workers.pool import AsyncTask
from workers.strategy import TASK_LOGGERS, PlainRequest
from workers.transport_inflight import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GID = "batch_1/test/0"
HEADERS = {"lang": "py", "task": "step", "id": f"{GID}/3", "group": GID, "ignore_result": True}
BODY = [["a", 1], {}, {"chord": {"task": "seal"}}]


class NoChannel(AbstractChannel):
    """What a message asks of its channel."""

    def decode_body(self, body: str, _: str) -> str:
        return body


class Consumer:
    """Has what strategies ask of Celery's consumer."""

    def __init__(self, **has: Any) -> None:
        vars(self).update(has)


@pytest.fixture
def app(caplog: pytest.LogCaptureFixture) -> Iterator[Celery]:
    for name in TASK_LOGGERS:
        caplog.set_level("WARNING", logger=name)
    app = Celery("test", set_as_current=False)
    app.conf.update(
        task_acks_late=True, worker_disable_rate_limits=True, result_backend="workers.chords.Backend+redis://"
    )

    @app.task(name="step", base=AsyncTask, shared=False)
    async def step(*_: Any) -> None:
        pass

    IN_FLIGHT.begin("t", "q")
    yield app
    IN_FLIGHT.forget("t")


def request_for(app: Celery, message: Message, events: object = None, callbacks: Any = ()) -> Any:
    """Give the request that Celery's consumer would start upon the message; None if none."""
    started: list[Any] = []
    consumer = Consumer(
        hostname="w@test",
        connection_errors=(),
        event_dispatcher=events,
        disable_rate_limits=app.conf.worker_disable_rate_limits,
        task_buckets={"step": None},
        timer=SimpleNamespace(call_at=lambda _, __, args, **___: started.extend(args)),
        qos=SimpleNamespace(increment_eventually=lambda: None),
        pool=SimpleNamespace(apply_async=None),
        controller=SimpleNamespace(state=state),
        on_task_request=started.append,
        apply_eta_task=None,
        _limit_task=None,
        _limit_post_eta=None,
    )
    app.tasks["step"].start_strategy(app, consumer)(message, None, lambda *_: None, lambda *_: None, callbacks)
    return started[0] if started else None


def message_of(headers: dict[str, Any] = HEADERS, body: Any = BODY) -> Message:
    text = body if isinstance(body, str) else msgspec.json.encode(body).decode()
    properties = {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": "utf-8"}
    payload = {"body": text, "headers": headers, "properties": properties, "content-encoding": "utf-8"}
    message = Message(payload | {"content-type": "application/json"}, channel=NoChannel())
    message.accept = {"application/json"}
    return message


def test_a_plain_line_goes_the_short_way(app: Celery) -> None:
    request = request_for(app, message_of())
    assert isinstance(request, PlainRequest)
    assert (request.id, request.args, request.kwargs, request.part_of) == (f"{GID}/3", ["a", 1], {}, GID)


def test_a_plain_request_answers_what_a_whole_one_does(app: Celery) -> None:
    plain, whole = request_for(app, message_of()), request_for(app, message_of(HEADERS | {"eta": None}))
    assert not isinstance(whole, PlainRequest)
    assert plain.info() == whole.info()
    assert plain._context.group == whole._context.group == GID
    assert plain.chord == whole.chord
    assert (plain.humaninfo(), plain.ignore_result) == (whole.humaninfo(), True)
    assert not hasattr(plain, "no_such_thing")


def test_a_group_without_a_chord_is_nobodys_part(app: Celery) -> None:
    request = request_for(app, message_of(HEADERS | {"group": "somebody-elses"}, [["a"], {}, {}]))
    assert isinstance(request, PlainRequest)
    assert request.part_of is None


@pytest.mark.parametrize(
    "message",
    [
        message_of(HEADERS | {"eta": "2100-01-01T00:00:00"}),
        message_of(HEADERS | {"expires": "2100-01-01T00:00:00"}),
        message_of(HEADERS | {"timelimit": [1, None]}),
        message_of(HEADERS | {"stamped_headers": ["a"]}),
        message_of(HEADERS | {"ignore_result": False}),
        message_of(HEADERS | {"group": "somebody-elses"}),
        message_of(HEADERS | {"group": None}),
        message_of(body=[["a"], {}, {"callbacks": [{"task": "x"}]}]),
        message_of(body=[["a"], {}, {"chain": [{"task": "x"}]}]),
        message_of(body=[["a"], {}, {"errbacks": [{"task": "x"}]}]),
        message_of(body=[[{"__type__": "uuid", "__value__": {"hex": "1" * 32}}], {}, {}]),
    ],
)
def test_an_unusual_message_goes_celerys_way(app: Celery, message: Message) -> None:
    request = request_for(app, message)
    assert request is not None
    assert not isinstance(request, PlainRequest)


def test_a_message_of_another_transport_goes_celerys_way(app: Celery) -> None:
    message = message_of()
    message.delivery_tag = "not ours"
    assert not isinstance(request_for(app, message), PlainRequest)


def test_with_a_callback_of_the_consumer_it_is_celerys_way(app: Celery) -> None:
    assert not isinstance(request_for(app, message_of(), callbacks=[lambda _: None]), PlainRequest)


@pytest.mark.parametrize(("groups", "plain"), [(None, False), ({"task"}, False), ({"worker"}, True)])
def test_events_of_tasks_need_celerys_way(app: Celery, groups: set[str] | None, plain: bool) -> None:
    events = SimpleNamespace(enabled=True, groups=groups, send=lambda *_, **__: None)
    assert isinstance(request_for(app, message_of(), events), PlainRequest) is plain


@pytest.mark.parametrize("name", ["task_received", "task_prerun", "task_postrun", "task_success"])
def test_who_listens_gets_celerys_way(app: Celery, name: str) -> None:
    def listener(**_: Any) -> None:
        pass

    getattr(signals, name).connect(listener)
    try:
        assert not isinstance(request_for(app, message_of()), PlainRequest)
    finally:
        getattr(signals, name).disconnect(listener)


@pytest.mark.parametrize(
    "change",
    [
        lambda app: app.conf.update(worker_disable_rate_limits=False),
        lambda app: app.conf.update(result_backend="disabled"),
        lambda app: app.conf.update(worker_deduplicate_successful_tasks=True),
        lambda app: setattr(app.tasks["step"], "acks_late", False),
        lambda app: setattr(app.tasks["step"], "soft_time_limit", 5),
        lambda app: setattr(type(app.tasks["step"]), "on_success", lambda *_: None),
    ],
)
def test_what_is_set_may_need_celerys_way(app: Celery, change: Callable[[Celery], Any]) -> None:
    change(app)
    assert not isinstance(request_for(app, message_of()), PlainRequest)


def test_a_log_of_each_task_needs_celerys_way(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger=TASK_LOGGERS[0])
    assert not isinstance(request_for(app, message_of()), PlainRequest)


def test_a_revoked_line_does_not_begin(app: Celery) -> None:
    state.revoked.add("revoked-line")
    try:
        assert request_for(app, message_of(HEADERS | {"id": "revoked-line"}, [[], {}, {}])) is None
    finally:
        state.revoked.discard("revoked-line")
