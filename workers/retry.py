"""Whether a line is sent again, and when: a pure rule over values. The loop that obeys it is in `execute`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from workers.providers.seam import ProviderError, Response

_TRANSIENT_STATUSES: Final = frozenset({408, 409, 429})
_SERVER_ERROR: Final = 500
_MAX_DOUBLINGS: Final = 32  # keeps the power finite; any cap is reached long before


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient to be with one line; the provider's configuration gives `max_attempts`."""

    max_attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 60.0
    max_retry_after_s: float = 600.0
    max_elapsed_s: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the line again, this many seconds from now."""

    after_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure might pass, but it has had its chances: the last outcome stands."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome stands: a success, or a failure that sending again would repeat."""


Decision: TypeAlias = Retry | GiveUp | Done


def decide(
    policy: Policy, attempt: int, outcome: Response | ProviderError, random: float, elapsed_s: float
) -> Decision:
    """Judge the outcome of attempt number `attempt` (from 1), `elapsed_s` after the first one began.

    Sent again: 408, 409, 429 and every status from 500, as the `openai` SDK does; and every `ProviderError`, since a
    gateway that hides an error inside a success mostly hides an overload. `random` is in [0, 1).

    The delay is exponential backoff with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    It comes on top of a Retry-After, so that lines refused together do not come back together.
    """
    if not _may_pass(outcome):
        return Done()
    if attempt >= policy.max_attempts:
        return GiveUp(f"It failed in all of {policy.max_attempts} attempts.")
    floor_s = outcome.retry_after_s or 0.0
    if floor_s > policy.max_retry_after_s:
        return GiveUp(f"The provider asked to wait {floor_s:g} s; the most is {policy.max_retry_after_s:g} s.")
    after_s = floor_s + random * min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
    if elapsed_s + after_s > policy.max_elapsed_s:
        return GiveUp(f"The next attempt would begin more than {policy.max_elapsed_s:g} s after the first.")
    return Retry(after_s)


def _may_pass(outcome: Response | ProviderError) -> bool:
    if isinstance(outcome, ProviderError):
        return True
    return outcome.status_code in _TRANSIENT_STATUSES or outcome.status_code >= _SERVER_ERROR
