from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from batchord.errors import ConfigError
from tests.integration.http1.origin import OVER, Call, line, opened, origin, refusal, sent, until, usual
from workers.providers import ProviderClient, connections, dial
from workers.providers.dial import dial_first
from workers.providers.openai import OpenAIProvider

if TYPE_CHECKING:
    from tests.integration.http1.origin import Origin
    from workers.providers.http1 import Connection

LARGE = b'{"model":"m","input":"%b"}' % (b"x" * 32_000_000)


@pytest.fixture(autouse=True)
def _only_what_a_test_does_closes_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEEPALIVE_S", 3600.0)


def open_connections(client: ProviderClient) -> list[Connection]:
    assert isinstance(client, OpenAIProvider)
    return list(client._connections._open)


def to_client(server: Origin) -> socket.socket:
    """Give the first connection's other end, to do something to it that the loop has not seen before the next send."""
    return socket.socket(fileno=os.dup(server.writers[0].get_extra_info("socket").fileno()))


async def test_a_request_goes_on_the_connection_that_was_used_last() -> None:
    async with origin() as server, opened(server.url) as client:
        await asyncio.gather(*(sent(client, f"a{n}") for n in range(3)))
        last = server.connections[-1]
        for n in range(3):
            await sent(client, f"b{n}")
    assert sorted(server.connections[:3]) == [0, 1, 2]
    assert server.connections[3:] == [last] * 3


async def test_there_are_never_more_connections_than_the_limit_and_no_answer_is_anothers() -> None:
    async with origin() as server, opened(server.url, max_concurrency=7) as client:
        await asyncio.gather(*(sent(client, f"line-{n}") for n in range(300)))
        assert len(open_connections(client)) == 7
    assert len(server.writers) == 7


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_KEEPALIVE_S", 0.1)
    async with origin() as server, opened(server.url) as client:
        await asyncio.gather(*(sent(client, f"line-{n}") for n in range(3)))
        await until(lambda: len(server.ended) == 3)
        assert open_connections(client) == []
        await sent(client)


async def test_a_connection_that_was_idle_for_too_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with origin() as server, opened(server.url) as client:
        await sent(client)
        monkeypatch.setattr(connections, "_KEEPALIVE_S", 0.0)
        await sent(client)
    assert server.connections == [0, 1]


async def test_an_idle_connection_that_the_server_closes_is_closed_at_once() -> None:
    async with origin() as server, opened(server.url) as client:
        await sent(client)
        server.writers[0].close()
        await until(lambda: not open_connections(client))
        await sent(client)
    assert server.connections == [0, 1]


async def test_nothing_is_sent_where_the_server_has_closed_and_the_loop_does_not_know_it() -> None:
    async with origin() as server, opened(server.url) as client:
        await sent(client)
        with closing(to_client(server)) as end:
            end.shutdown(socket.SHUT_WR)
        await sent(client)
    assert server.connections == [0, 1]


async def test_bytes_on_an_idle_connection_close_it() -> None:
    async with origin() as server, opened(server.url) as client:
        await sent(client)
        server.writers[0].write(b"\r\n")
        await until(lambda: server.ended[0] == 1)
        await sent(client)
    assert server.connections == [0, 1]


async def test_a_second_copy_of_an_answer_is_not_taken_for_the_next_one() -> None:
    async with origin() as server, opened(server.url) as client:
        await sent(client, "one")
        with closing(to_client(server)) as end:
            end.sendall(server.calls[0].whole())
        await sent(client, "two")
    assert server.connections == [0, 1]


async def test_a_large_body_is_written_no_faster_than_it_is_read() -> None:
    reads = asyncio.Event()
    digest = sha256()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reads.wait()
        left = len(LARGE)
        while left:
            piece = await reader.read(65536)
            left -= len(piece)
            digest.update(piece)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{"choices":[]}')
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server, opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        sending = asyncio.create_task(client.send(line(body=LARGE)))
        await until(lambda: any(connection._resumed for connection in open_connections(client)))
        (connection,) = open_connections(client)
        assert connection._transport.get_write_buffer_size() < 1_000_000
        reads.set()
        assert (await sending).status_code == 200
    assert digest.digest() == sha256(LARGE).digest()


@pytest.mark.parametrize("closes", [True, False])
async def test_an_answer_that_comes_before_the_body_is_read_counts_and_ends_the_connection(closes: bool) -> None:
    refused = b'HTTP/1.1 413 Too large\r\nContent-Length: 12\r\n\r\n{"error":{}}'
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refused)
        if not closes:
            await asyncio.wait_for(_rest(reader), 20)
        writer.close()
        ended.set()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        response = await client.send(line(body=LARGE))
        assert (response.status_code, response.body) == (413, b'{"error":{}}')
        await asyncio.wait_for(ended.wait(), 20)
        await until(lambda: not open_connections(client))


async def _rest(reader: asyncio.StreamReader) -> None:
    try:
        while await reader.read(1 << 20):
            pass
    except ConnectionError:
        pass


async def test_time_spent_waiting_for_a_connection_counts() -> None:
    async with origin(_silent) as server, opened(server.url, max_concurrency=1, timeout_s=0.3) as client:
        errors = await asyncio.gather(*(refusal(client, line(str(n))) for n in range(3)))
    assert {error.code for error in errors} == {"request_timeout"}
    assert len(server.calls) < 3


async def _silent(_call: Call) -> None:
    await asyncio.Event().wait()


async def test_a_time_that_is_over_closes_the_connection() -> None:
    async with origin(_silent) as server, opened(server.url, timeout_s=0.05) as client:
        error = await refusal(client, line())
        assert (error.code, error.message) == ("request_timeout", OVER.format("0.05"))
        assert not open_connections(client) or open_connections(client)[0]._transport.is_closing()


async def test_a_cancelled_request_closes_its_connection_wherever_it_is() -> None:
    async def half(call: Call) -> None:
        call.writer.write(call.whole()[:40])
        await _silent(call)

    async with origin(half) as server, opened(server.url, max_concurrency=2) as client:
        sending = [asyncio.create_task(client.send(line(str(n)))) for n in range(4)]
        await until(lambda: len(server.calls) == 2)
        for task in sending:
            task.cancel()
        ended = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(error) for error in ended] == [asyncio.CancelledError] * 4
        await until(lambda: not open_connections(client))
        server.answer = usual
        await sent(client)
    assert server.connections == [0, 1, 2]


async def test_a_request_cancelled_at_any_moment_leaves_the_next_one_right() -> None:
    async with origin() as server, opened(server.url, max_concurrency=2) as client:
        for turns in range(40):
            sending = asyncio.create_task(client.send(line("given-up")))
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await sent(client, f"line-{turns}")
        assert len(open_connections(client)) <= 2


async def test_closing_ends_what_is_under_way_and_all_that_comes() -> None:
    async with origin(_silent) as server, opened(server.url) as client:
        sending = asyncio.create_task(refusal(client, line()))
        await until(lambda: len(server.calls) == 1)
        await client.aclose()
        assert (await sending).code == "connection_error"
        assert open_connections(client) == []
        assert (await refusal(client, line())).code == "connection_error"
        await client.aclose()
    assert len(server.calls) == 1


async def test_a_server_that_closes_each_new_connection_is_a_connection_error() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    async with server, opened(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        errors = [await refusal(client, line()) for _ in range(20)]
    assert {error.code for error in errors} == {"connection_error"}


async def test_a_server_that_takes_no_connection_is_a_connection_error_in_time() -> None:
    with _deaf() as (deaf, _fillers):
        async with opened(f"http://127.0.0.1:{deaf.getsockname()[1]}", connect_timeout_s=0.2) as client:
            error = await refusal(client, line())
    assert (error.code, "no connection within 0.2 s" in error.message) == ("connection_error", True)


async def test_the_whole_time_bounds_connecting_too() -> None:
    with _deaf() as (deaf, _fillers):
        async with opened(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout_s=0.2) as client:
            assert (await refusal(client, line())).code == "request_timeout"


class _deaf:  # noqa: N801 (used like a function)
    """A listener whose queue is full: what connects to it gets no answer at all."""

    def __enter__(self) -> tuple[socket.socket, list[socket.socket]]:
        self._deaf = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._fillers = [socket.socket() for _ in range(4)]
        for filler in self._fillers:
            filler.setblocking(False)  # noqa: FBT003
            filler.connect_ex(self._deaf.getsockname())
        return self._deaf, self._fillers

    def __exit__(self, *_: object) -> None:
        for each in [self._deaf, *self._fillers]:
            each.close()


async def test_an_address_that_does_not_answer_is_passed_over_after_a_moment() -> None:
    with _deaf() as (deaf, _fillers), closing(socket.create_server(("127.0.0.1", 0))) as good:
        addresses = [(socket.AF_INET, each.getsockname()) for each in (deaf, good, deaf)]
        with closing(await dial_first(addresses)) as connected:
            assert connected.getpeername() == good.getsockname()


async def test_an_address_that_refuses_is_passed_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "_HEAD_START_S", 3600)
    with closing(socket.create_server(("127.0.0.1", 0))) as gone:
        refusing = gone.getsockname()
    with closing(socket.create_server(("127.0.0.1", 0))) as good:
        addresses = [(socket.AF_INET, refusing), (socket.AF_INET, good.getsockname())]
        with closing(await dial_first(addresses)) as connected:
            assert connected.getpeername() == good.getsockname()
    with pytest.raises(ConnectionRefusedError):
        await dial_first([(socket.AF_INET, refusing)] * 2)


async def test_dialling_that_is_given_up_leaves_no_socket_behind() -> None:
    with _deaf() as (deaf, _fillers):
        dialling = asyncio.create_task(dial_first([(socket.AF_INET, deaf.getsockname())] * 2))
        await asyncio.sleep(0)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*tasks, return_exceptions=True)  # an open socket would be a warning, and so a failure


async def test_many_connections_at_once_look_the_name_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[Any] = []
    resolve = socket.getaddrinfo

    def counted(host: Any, *args: Any, **options: Any) -> Any:
        looked_up.append(host)
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    async with origin(host="127.0.0.1") as server, opened(f"http://localhost:{server.port}/v1") as client:
        looked_up.clear()
        await asyncio.gather(*(sent(client, f"line-{n}") for n in range(200)))
    assert len(looked_up) <= 1  # uvloop does it by itself


async def test_a_name_without_address_is_a_connection_error() -> None:
    async with opened("http://no-such-host.invalid/v1") as client:
        error = await refusal(client, line())
    assert (error.code, error.message.startswith("The provider could not be reached: ")) == ("connection_error", True)


async def test_a_name_that_cannot_be_one_is_a_connection_error() -> None:
    async with opened(f"http://{'a' * 64}.example/v1") as client:
        assert (await refusal(client, line())).code == "connection_error"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_a_base_url_may_be_an_address_of_ipv6() -> None:
    async with origin(host="::1") as server, opened(f"{server.url}?api-version=1") as client:
        await sent(client)
    assert server.calls[0].head.startswith(b"POST /v1/chat/completions?api-version=1 HTTP/1.1\r\n")
    assert b"\r\nhost: [::1]:%d\r\n" % server.port in server.calls[0].head


async def test_a_name_and_password_in_the_base_url_are_sent_as_such() -> None:
    async with origin() as server:
        async with opened(server.url.replace("//", "//me:p%40ss@")) as client:
            await sent(client)
        async with opened(server.url.replace("//", "//me:pass@"), {"KEY": "sk"}, api_key_env="KEY") as client:
            await sent(client)
    assert b"\r\nauthorization: Basic bWU6cEBzcw==\r\n" in server.calls[0].head
    assert server.calls[1].head.count(b"authorization: ") == server.calls[1].head.count(b"Bearer sk") == 1
    assert b"host: 127.0.0.1" in server.calls[0].head


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "b\r\nX-C: d"}, {"X A": "b"}, {"X:A": "b"}, {"": "b"}, {"Content-Length": "1"}, {"Idempotency-Key": "k"}],
)
async def test_a_header_that_would_garble_requests_is_refused_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"'p': the header") as raised:
        async with opened("http://127.0.0.1:9/v1", headers=headers):
            pass
    assert "X-C" not in str(raised.value)


async def test_no_error_shows_the_query_or_the_key() -> None:
    async with origin(_silent) as server:
        url = f"http://secret-user:secret-password@127.0.0.1:{server.port}/v1?key=secret-query"
        async with opened(url, {"KEY": "secret-key"}, api_key_env="KEY", timeout_s=0.05) as hasty:
            messages = [(await refusal(hasty, line())).message]
        async with opened(url, {"KEY": "secret-key"}, api_key_env="KEY") as client:
            server.answer = lambda call: _say(call, b"NOT HTTP\r\n\r\n")
            messages.append((await refusal(client, line())).message)
            server.answer = lambda call: _say(call, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            messages.append((await refusal(client, line())).message)
    async with opened(url, {"KEY": "secret-key"}, api_key_env="KEY") as client:
        messages.append((await refusal(client, line())).message)
    assert len(set(messages)) == 4
    assert not [message for message in messages if "secret" in message]


async def _say(call: Call, answer: bytes) -> None:
    call.writer.write(answer)
    call.writer.close()
