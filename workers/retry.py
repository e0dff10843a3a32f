"""Whether a line is sent again, and when: a pure rule over values. The loop that obeys it is in `execute`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from workers.providers.seam import ProviderError, Response

_TRANSIENT_STATUSES: Final = frozenset({408, 409})
_UNABLE_STATUSES: Final = frozenset({401, 402, 403, 404})
_MAX_DOUBLINGS: Final = 32  # keeps the power finite; any cap is reached long before
_FINAL_REFUSALS: Final = (b"insufficient_quota", b"Request too large")
"""What OpenAI's 429 says where waiting mends nothing: the account is empty, or one request is past the whole limit."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient to be with one line; the provider's configuration gives `max_attempts` and `max_elapsed_s`."""

    max_attempts: int = 5
    max_elapsed_s: float = 24 * 3600.0
    base_s: float = 0.5
    cap_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Send the line again, this many seconds from now."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Send the line again when its provider takes requests: it has not taken this one, so that it was no attempt."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure might pass, but it has had its chances here: a fallback may try, or else the last outcome stands."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unable:
    """This provider cannot serve the line at all: a fallback may, or else the outcome stands."""


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome stands: a success, or a failure that sending again would repeat anywhere."""


Decision: TypeAlias = Retry | Wait | GiveUp | Unable | Done


def decide(
    policy: Policy, attempt: int, outcome: Response | ProviderError, random: float, elapsed_s: float
) -> Decision:
    """Judge the outcome of attempt number `attempt` (from 1) after `elapsed_s` of sending and of waiting for it.

    Not an attempt: a 429, and what never reached the provider. Sent again: 408, 409 and every status from 500, as the
    `openai` SDK does; and every other `ProviderError`, since a gateway that hides an error inside a success mostly
    hides an overload. `random` is in [0, 1).

    The delay is exponential backoff with full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    A Retry-After is not this rule's: it pauses the provider, where the line will wait anyway.
    """
    if isinstance(outcome, Response) and (outcome.is_unsent or is_final_refusal(outcome)):
        return Unable()
    if is_refused(outcome):
        return Wait()
    if not _may_pass(outcome):
        return Done()
    if attempt >= policy.max_attempts:
        return GiveUp(f"It failed in all of {policy.max_attempts} attempts.")
    after_s = random * min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
    if elapsed_s + after_s > policy.max_elapsed_s:
        return GiveUp(f"The next attempt would begin more than {policy.max_elapsed_s:g} s after the first.")
    return Retry(after_s)


def is_refused(outcome: Response | ProviderError) -> bool:
    """Whether the provider has not taken the request: it was too busy, or out of reach."""
    if isinstance(outcome, ProviderError):
        return outcome.is_unsent
    return outcome.is_throttled


def is_final_refusal(response: Response) -> bool:
    """Whether the provider will never take this line's request, as the configuration and the account are now."""
    if response.is_throttled:
        return any(words in response.body for words in _FINAL_REFUSALS)
    return response.status_code in _UNABLE_STATUSES


def _may_pass(outcome: Response | ProviderError) -> bool:
    if isinstance(outcome, ProviderError):
        return True
    return outcome.status_code in _TRANSIENT_STATUSES or outcome.is_server_error
