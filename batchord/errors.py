"""The error tree of batchord: what happened, to which id, and what to do. Not for the problems of an input's lines."""

from __future__ import annotations


class BatchordError(Exception):
    """The root of every error that batchord raises on purpose."""


class ConfigError(BatchordError):
    """A setting, an environment variable or the providers file is wrong; the message names it and the mend."""


class NotFoundError(BatchordError):
    """No batch or file has this id."""


class ConflictError(BatchordError):
    """The batch's status does not allow what was asked for."""


class UnavailableError(BatchordError):
    """Redis or the storage does not answer for now; whoever meets it waits and tries again."""


class StateUnavailableError(UnavailableError):
    """Redis is down, loading, read-only or out of memory."""


class StorageUnavailableError(UnavailableError):
    """The storage did not carry out an operation that may work later (network, full disk, permission)."""


class BlobNotFoundError(BatchordError):
    """The storage holds no object at this path."""


class InputRefusedError(BatchordError):
    """The input file has problems, so nothing was sent.

    `problems` are the lines of text to show, lowest line number first.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("The input was refused:\n" + "\n".join(problems))
        self.problems = problems
