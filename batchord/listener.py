"""The socket on which the API is served: taken by the command that starts it, and handed down to its process.

So an address that is taken is known before anything starts, and connections wait while one API process takes the
place of another. Not for what is served.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from batchord.errors import ConfigError

LISTENER_ENV: Final = "BATCHORD_LISTENER_FD"
_BACKLOG: Final = 2_048


def listen(host: str, port: int) -> socket.socket:
    """Take an address; port 0 takes a free one.

    Raises:
        ConfigError: it is in use, or not this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address, which is told anyway
        mend = "--port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "--host"
        raise ConfigError(f"Cannot serve on {host}, port {port}: {reason}. Choose another {mend}.") from None


def url(listener: socket.socket) -> str:
    """Give the address as a client on this machine writes it."""
    host, port = listener.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (told apart, not bound)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def handed_down() -> socket.socket | None:
    """In a process of the API: give the socket that its starter took; None where it was started by itself."""
    fd = os.environ.pop(LISTENER_ENV, None)  # popped: it is this process's own, not for its children
    return socket.socket(fileno=int(fd)) if fd else None
