"""What the workers say of each provider at the moment, for those who look on. Nothing is decided by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from batchord.state import conditions, keys
from batchord.state.calls import Call, Script, nothing
from batchord.state.conditions import ProviderCondition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_REPORT, _READ = Script("report", "_clock"), Script("providers", "_clock", "_condition")
_SILENT_S: Final = 15


class Report(msgspec.Struct, frozen=True):
    """What one worker says of one provider, `at` a time of Redis.

    `permits` is its part of the limit now. `sent`, `refused` (429s) and `failed` (no answer, or a status of 500 or
    more) count since it started; `rate_per_minute` is that of the requests sent in the last 10 s, and
    `token_rate_per_minute` that of the tokens of the answers. `requests_per_minute` and `tokens_per_minute` are the
    limits that it keeps, stated or learned; None is not limited.
    """

    worker: str
    in_flight: int = 0
    waiting: int = 0
    permits: int = 0
    sent: int = 0
    rate_per_minute: float = 0
    token_rate_per_minute: float = 0
    refused: int = 0
    failed: int = 0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    at: float = 0


class ProviderView(msgspec.Struct, frozen=True):
    """How a provider is, and what its workers do in sum; see `ProviderCondition` and `Report`."""

    name: str
    condition: ProviderCondition
    reports: list[Report]

    @property
    def workers(self) -> int:
        """How many workers report."""
        return len(self.reports)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(report.in_flight for report in self.reports)

    @property
    def waiting(self) -> int:
        """Lines that wait in a worker."""
        return sum(report.waiting for report in self.reports)

    @property
    def permits(self) -> int:
        """The limit of requests in flight, as far as workers have parts of it."""
        return sum(report.permits for report in self.reports)

    @property
    def sent(self) -> int:
        """Requests sent by the workers that live."""
        return sum(report.sent for report in self.reports)

    @property
    def rate_per_minute(self) -> float:
        """Requests a minute, by those of the last 10 s."""
        return sum(report.rate_per_minute for report in self.reports)

    @property
    def token_rate_per_minute(self) -> float:
        """Tokens a minute, by the answers of the last 10 s."""
        return sum(report.token_rate_per_minute for report in self.reports)

    @property
    def requests_per_minute(self) -> float | None:
        """The limit on requests a minute that the workers keep, as far as they know one."""
        return _lowest(report.requests_per_minute for report in self.reports)

    @property
    def tokens_per_minute(self) -> float | None:
        """The limit on tokens a minute that the workers keep, as far as they know one."""
        return _lowest(report.tokens_per_minute for report in self.reports)

    @property
    def refused(self) -> int:
        """Answers of 429."""
        return sum(report.refused for report in self.reports)

    @property
    def failed(self) -> int:
        """Requests without an answer, or with a status of 500 or more."""
        return sum(report.failed for report in self.reports)


def _lowest(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def write(said: Mapping[str, Report]) -> Call[None]:
    """Keep what a worker says of each provider; there must be one at least."""
    args = [text for report in said.values() for text in (report.worker, msgspec.json.encode(report))]
    return _REPORT.call([keys.reports(provider) for provider in said], args, nothing)


def leave(worker: str, providers: Sequence[str]) -> list[Call[None]]:
    """Take back the reports of a worker that ends."""
    return [Call(("HDEL", keys.reports(provider), worker), nothing) for provider in providers]


def read(*providers: str) -> Call[list[ProviderView]]:
    """Give how some providers are, in their order; what workers said that are silent since is dropped."""
    names = [keys.condition(name) for name in providers] + [keys.reports(name) for name in providers]
    return _READ.call(
        names, (_SILENT_S,), lambda answer: [_view(*pair) for pair in zip(providers, answer, strict=True)]
    )


def _view(name: str, answer: Sequence[Any]) -> ProviderView:
    condition, reports = answer
    return ProviderView(name, conditions.decode(condition), [_report(text) for text in reports])


def _report(text: bytes) -> Report:
    at, _, report = text.partition(b" ")
    return msgspec.structs.replace(msgspec.json.decode(report, type=Report), at=float(at))
