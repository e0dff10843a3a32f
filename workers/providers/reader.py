"""The bytes of an HTTP/1.1 answer as they come: whether it is whole yet, and what it holds. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from workers.providers.codings import GarbledError, decoded
from workers.providers.seam import ProviderError

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_MAX_HEAD_BYTES: Final = 128 * 1024
_FRAMED: Final = frozenset({"content-length", "transfer-encoding"})
_INFORMATIONAL: Final = range(100, 200)


class AnswerReader:
    """Reads the answers of one connection, one after another; `begin` comes before each.

    `is_headed` says that the final status and all headers are known, `is_whole` that the body is, too. `keeps_alive`
    then says whether the connection can be used again: a byte behind an answer may be half of another one.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # called by the parser, like the other `on_`
        self._parser = HttpResponseParser(self)
        # Some servers send this, and no body depends on it. A bare line feed is refused: between chunks, one does.
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_spaces_after_chunk_size=True)
        self.begin()

    def begin(self) -> None:
        """Get ready for the next answer."""
        self.status_code = 0
        self.headers: dict[str, str] = {}
        self.is_headed = self.is_whole = self.keeps_alive = False
        self._received_bytes = 0
        self._body = b""

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            ProviderError: this is no HTTP, or too much of it.
        """
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.keeps_alive = False
            if not self.is_whole:
                raise self._garbled(str(error)) from error
        if self._received_bytes > _MAX_HEAD_BYTES and not self.is_whole:
            self._check_size()

    def _garbled(self, reason: str) -> ProviderError:
        said = "was cut short or garbled" if self.is_headed else "is not HTTP"
        return ProviderError("invalid_response", f"The provider's answer {said}: {reason}")

    def _check_size(self) -> None:
        if not self.is_headed:
            message = f"The headers of the provider's answer are larger than {_MAX_HEAD_BYTES} bytes."
            raise ProviderError("invalid_response", message)
        if self._received_bytes > MAX_ANSWER_BYTES + _MAX_HEAD_BYTES:
            raise _too_large()

    def end(self, reason: str) -> None:
        """Take the end of the connection, with what broke it, if anything did: the end of some answers is marked so.

        Raises:
            ProviderError: the answer is not whole.
        """
        because = f": {reason}" if reason else "."
        if not self.is_headed:
            raise ProviderError("connection_error", f"The provider's connection was closed without an answer{because}")
        if reason or self.headers.keys() & _FRAMED:
            raise ProviderError("invalid_response", f"The provider's answer was cut short{because}")
        self._take_body()

    def _take_body(self) -> None:
        self._body = b"".join(self._pieces)
        self._pieces.clear()
        self.is_whole = True

    def body(self) -> bytes:
        """Give the body of an answer that is whole, with its content coding undone.

        Raises:
            ProviderError: it is larger than `MAX_ANSWER_BYTES`, or is not what its coding says.
        """
        try:
            body = decoded(self._body, self.headers.get("content-encoding", "").lower(), MAX_ANSWER_BYTES)
        except GarbledError as error:
            raise self._garbled(str(error)) from error
        if len(body) > MAX_ANSWER_BYTES:
            raise _too_large()
        return body

    def on_message_begin(self) -> None:
        """Start over, be it after an informational answer; what begins behind a whole one was not asked for."""
        if self.is_whole:
            self.keeps_alive = False
        else:
            self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but no trailer."""
        if not self.is_headed:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Know the status."""
        if not self.is_headed:
            self.status_code = self._parser.get_status_code()
            self.is_headed = self.status_code not in _INFORMATIONAL

    def on_message_complete(self) -> None:
        """Hold a whole answer, unless it was an informational one."""
        if self.is_headed and not self.is_whole:
            self.keeps_alive = self._parser.should_keep_alive()
            self._take_body()


def _too_large() -> ProviderError:
    return ProviderError("invalid_response", f"The provider's answer is larger than {MAX_ANSWER_BYTES} bytes.")
