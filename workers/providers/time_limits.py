"""How long one attempt may take, in all and in silence, and the errors that say which limit it was. Pure: no clock."""

from __future__ import annotations

from dataclasses import dataclass

from workers.providers.seam import ProviderError


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The limits of one attempt, in seconds; moments are those of one monotonic clock.

    `total_s` is until the last byte of the answer, `silence_s` between two bytes either way; None is no limit.
    """

    total_s: float
    silence_s: float | None = None

    def next_at(self, began_at: float, moved_at: float) -> float:
        """Give when the next limit is reached if nothing moves until then."""
        ends_at = began_at + self.total_s
        return ends_at if self.silence_s is None else min(ends_at, moved_at + self.silence_s)

    def reached(self, began_at: float, moved_at: float, now: float) -> ProviderError | None:
        """Give the error of the limit that is reached, if one is."""
        if now >= began_at + self.total_s:
            return self.over()
        if self.silence_s is not None and now >= moved_at + self.silence_s:
            message = f"The provider was silent for {self.silence_s:g} s; if it needs longer, raise its read_timeout_s."
            return ProviderError("request_timeout", message)
        return None

    def over(self) -> ProviderError:
        """Give the error of an attempt whose time in all is over."""
        message = f"The provider did not answer within {self.total_s:g} s; if it needs longer, raise its timeout_s."
        return ProviderError("request_timeout", message)
