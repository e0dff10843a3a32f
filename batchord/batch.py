"""The handle on one batch: its status, waiting for it, cancelling it, its results."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from batchord import lifecycle
from batchord.broker import Step
from batchord.errors import (
    ConflictError,
    InputRefusedError,
    NotFoundError,
    StateUnavailableError,
    UnavailableError,
)
from batchord.lifecycle import Status
from batchord.progress import follow
from batchord.results import decode_result
from batchord.standing import Troubles
from batchord.state import batches
from batchord.storage import paths
from batchord.validation import whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchord.client import Client
    from batchord.contract import BatchProblem
    from batchord.results import Result
    from batchord.state.batches import BatchRecord

_POLL_S: Final = 0.25


class Batch:
    """A handle on one batch. Nothing is kept in it: every question is asked anew."""

    def __init__(self, client: Client, batch_id: str) -> None:
        self._client = client
        self.id = batch_id

    def __repr__(self) -> str:
        return f"<Batch {self.id}>"

    def read(self) -> BatchRecord:
        """Read all that is known of the batch now.

        Raises:
            NotFoundError: it is gone; its retention is over.
        """
        record = self._client.state.run(batches.read(self.id))
        if record is None or record.removing:
            raise NotFoundError(f"No batch found with id '{self.id}'.")
        return record

    @property
    def status(self) -> Status:
        """The batch's status now."""
        return self.read().batch.status

    def wait(self, *, progress: bool = False, timeout_s: float | None = None) -> Status:
        """Wait until the batch has ended.

        Args:
            progress: show a progress bar on standard error meanwhile.
            timeout_s: wait no longer than so many seconds.

        Raises:
            TimeoutError: the batch has not ended by then; it goes on.
            InputRefusedError: the input has problems, so nothing was sent.
        """
        record = self.read()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        troubles = Troubles(self._client.state)
        with follow(show=progress) as shown:
            while True:
                with suppress(UnavailableError):  # the batch goes on without us
                    record = self.read()
                    shown.update(record, troubles.of(record) if progress else "")
                if record.batch.status.is_terminal:
                    break
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError(f"Batch {self.id} is still {record.batch.status} after {timeout_s:g} s.")
                time.sleep(_POLL_S)
        check_accepted(record)
        return record.batch.status

    def cancel(self) -> Status:
        """Cancel the batch: requests in flight finish, the rest is not sent. Cancelling twice is the same as once.

        Raises:
            ConflictError: the batch has ended otherwise.
        """
        cancelling = batches.transition(self.id, lifecycle.to(Status.CANCELLING), time.time())
        (moved,), is_durable = self._client.write([cancelling])
        if not is_durable:
            raise StateUnavailableError(f"Redis did not write the cancelling of {self.id} to its disk; try again.")
        status = self.status
        if not moved and status not in {Status.CANCELLING, Status.CANCELLED}:
            raise ConflictError(f"Cannot cancel a batch with status '{status}'.")
        self._client.ask(Step.FEED, self.id)
        return status

    def results(self) -> Iterator[Result]:
        """Iterate over the results of a batch that has ended: successes in the input's order, then the others.

        Raises:
            ConflictError: the batch has not ended yet.
        """
        batch = self.read().batch
        if not batch.status.is_terminal:
            raise ConflictError(f"Batch {self.id} is still {batch.status}; call wait() first.")
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                yield from map(decode_result, self.lines(file_id))

    def lines(self, file_id: str) -> Iterator[bytes]:
        """Iterate over the lines of one of the batch's files, without their newlines."""
        return whole_lines(self.content(file_id))

    def content(self, file_id: str) -> Iterator[bytes]:
        """Iterate over the bytes of one of the batch's files."""
        return self._client.blobs.stream(paths.file(file_id))


def check_accepted(record: BatchRecord) -> None:
    """See to it that a batch's input was not refused.

    Raises:
        InputRefusedError: it was; the error has its problems as lines of text.
    """
    if record.batch.status is Status.FAILED:
        raise InputRefusedError([problem_line(problem) for problem in record.batch.errors])


def problem_line(problem: BatchProblem) -> str:
    """Give a problem of a refused input as a line of text, such as `line 17: custom_id: duplicates line 3`."""
    return problem.summary if problem.line is None else f"line {problem.line}: {problem.summary}"
