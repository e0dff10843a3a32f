"""The error tree of batchord: what happened, to which id, and what to do. Not for the problems of an input's lines."""

from __future__ import annotations


class BatchordError(Exception):
    """The root of every error that batchord raises on purpose."""


class ConfigError(BatchordError):
    """A setting, an environment variable or the providers file is wrong; the message names it and the mend."""


class InvalidRequestError(BatchordError):
    """An argument breaks a rule of the contract.

    `param` is the argument's path, such as `metadata.tags`, and `code` OpenAI's word for the rule, where they have one.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotFoundError(BatchordError):
    """Nothing of the asker's tenant has this id.

    `param` is the argument that named it, and `code` OpenAI's word for it, where the contract says so.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ConflictError(BatchordError):
    """The status of a batch or file does not allow what was asked for; asking again would not help."""


class GoneError(BatchordError):
    """What was asked for has expired."""


class KeyRefusedError(BatchordError):
    """No API key was given, or one that is unknown or revoked; `code` is OpenAI's word for it, if any."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


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
