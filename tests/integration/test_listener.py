"""The socket of the API: taken once, told in a URL, handed down to a process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from batchord.errors import ConfigError
from batchord.listener import LISTENER_ENV, handed_down, listen, url

INHERITING = """
import sys
from batchord.listener import LISTENER_ENV, handed_down, url
import os
listener = handed_down()
print(url(listener), LISTENER_ENV in os.environ, flush=True)
connection, _ = listener.accept()
connection.sendall(connection.recv(16).upper())
"""


def test_port_zero_takes_a_free_one_which_is_told() -> None:
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[1] > 0
        assert url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_of_ip_version_6_is_written_in_brackets() -> None:
    with listen("::1", 0) as listener:
        assert url(listener) == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("family", "every", "reachable"),
    [(socket.AF_INET, "0.0.0.0", "127.0.0.1"), (socket.AF_INET6, "::", "[::1]")],  # noqa: S104 (nobody listens)
)
def test_every_address_is_told_as_one_that_a_client_here_can_reach(
    family: socket.AddressFamily, every: str, reachable: str
) -> None:
    with socket.socket(family) as bound:
        bound.bind((every, 0))
        assert url(bound) == f"http://{reachable}:{bound.getsockname()[1]}"


def test_an_address_in_use_or_of_another_machine_is_refused_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match=r"in use\. Choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"Cannot serve on 192\.0\.2\.1.*another --host"):
        listen("192.0.2.1", 0)


def test_a_port_is_free_again_at_once_although_a_connection_was_just_closed() -> None:
    with listen("127.0.0.1", 0) as first, socket.create_connection(first.getsockname()) as client:
        first.accept()[0].close()  # the side that closes first is the one that the kernel remembers
        client.recv(1)
        port = first.getsockname()[1]
    listen("127.0.0.1", port).close()


def test_a_process_goes_on_with_the_socket_that_it_is_handed() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=30) as waiting:
        env = {**os.environ, LISTENER_ENV: str(listener.fileno())}
        command = [sys.executable, "-c", INHERITING]
        waiting.sendall(b"hello")
        done = subprocess.run(
            command, env=env, pass_fds=[listener.fileno()], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout.split() == [url(listener), "False"]
        assert waiting.recv(16) == b"HELLO"


def test_a_process_that_is_handed_none_has_none() -> None:
    assert handed_down() is None
