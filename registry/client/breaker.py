"""A circuit breaker, which keeps an upstream that fails from being called."""

import contextlib
import enum
import time
from collections.abc import Callable, Iterator

from registry import clock
from registry.errors import (
    UpstreamAddressError,
    UpstreamBusyError,
    UpstreamCredentialsError,
    UpstreamError,
    UpstreamRateLimitedError,
    UpstreamUnavailableError,
)

FAILURES = 5
"""Number of consecutive failures that open a breaker."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
"""Seconds until the first attempt after failures. The time doubles with each failed attempt."""

REFUSED_PAUSE_S = 900.0
"""Seconds without attempts after a refused password, so that the account is not locked."""

LIMITED_PAUSE_S = 60.0
"""Seconds without attempts after a rate limit that states no time."""

LONGEST_RETRY_AFTER_S = 6 * 3600.0
"""Maximum of a time that the upstream states; the window of Docker Hub's limit."""


class BreakerState(enum.Enum):
    """Whether requests are sent, refused, or one of them is sent as an attempt."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """The circuit breaker of the upstream `name`.

    It opens after `FAILURES` failures in a row, and at once if the upstream states a time to wait
    or refuses the password. After the pause, one request is sent as an attempt.
    """

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0
        self._attempting = False
        self.cause: UpstreamError | None = None
        """The error that opened the breaker; None if it is closed."""

    @property
    def state(self) -> BreakerState:
        if self.cause is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self.seconds_left else BreakerState.HALF_OPEN

    @property
    def seconds_left(self) -> float:
        """Seconds until the next attempt; 0 if a request can be sent now."""
        return max(0.0, self._until - self._monotonic()) if self.cause else 0.0

    def reset(self) -> None:
        """Close the breaker, for example after an operator has corrected the password."""
        self._failures, self._pause_s, self.cause = 0, FIRST_PAUSE_S, None

    def require_closed(self) -> None:
        """Raise the error of an open breaker, if it is open and no attempt is due."""
        if self.cause is not None and (self.seconds_left or self._attempting):
            raise self._refusal(self.cause)

    @contextlib.contextmanager
    def watch(self, *, is_whole: bool = True) -> Iterator[None]:
        """Admit a request, and learn from the error that the block raises, or from none.

        With `is_whole` false, a body follows the block: its end is reported to `succeed` or
        `record`. Raises UpstreamUnavailableError if the breaker is open.
        """
        self.require_closed()
        is_attempt = self.cause is not None
        self._attempting = is_attempt
        try:
            yield
        except UpstreamError as error:
            self.record(error, is_attempt=is_attempt)
            raise
        else:
            self.succeed(is_attempt=is_attempt, is_whole=is_whole)
        finally:
            if is_attempt:
                self._attempting = False

    def succeed(self, *, is_attempt: bool = False, is_whole: bool = True) -> None:
        """Forget earlier failures, unless the breaker has opened after the request was sent."""
        if is_attempt and not is_whole:
            self.cause = None  # a failure in the body opens it again
        elif is_whole and (is_attempt or self.cause is None):
            self.reset()

    def record(self, error: UpstreamError, *, is_attempt: bool = False) -> None:
        """Count an error, for example one in the middle of a body."""
        match error:
            case UpstreamBusyError() | UpstreamAddressError():
                pass
            case UpstreamCredentialsError():
                self.open(error, REFUSED_PAUSE_S)
            case UpstreamRateLimitedError() if error.is_pull_limit:  # other requests are allowed
                self.succeed(is_attempt=is_attempt)
            case UpstreamRateLimitedError():
                self.open(error, error.retry_after or LIMITED_PAUSE_S)
            case UpstreamUnavailableError() if error.retry_after:
                self.open(error, error.retry_after)
            case UpstreamUnavailableError():
                self._fail(error, is_attempt=is_attempt)
            case _:  # the upstream has answered
                self.succeed(is_attempt=is_attempt)

    def open(self, cause: UpstreamError, pause_s: float) -> None:
        """Open the breaker for a time."""
        self.cause = cause
        self._until = self._monotonic() + min(pause_s, LONGEST_RETRY_AFTER_S)

    def _fail(self, error: UpstreamError, *, is_attempt: bool) -> None:
        self._failures += 1
        # Requests that were sent before the breaker opened do not make the pause longer.
        if is_attempt or (self.cause is None and self._failures >= FAILURES):
            self.open(error, self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _refusal(self, cause: UpstreamError) -> UpstreamUnavailableError:
        left = self.seconds_left or 1.0
        until = clock.rfc3339(clock.now_us() + round(left * 1e6))[:19]
        message = f"{self._name} is not called before {until}Z: {cause.message}"
        if isinstance(cause, UpstreamRateLimitedError):
            return UpstreamRateLimitedError(message, left, is_pull_limit=cause.is_pull_limit)
        return UpstreamUnavailableError(message, left)
