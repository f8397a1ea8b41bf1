"""Circuit breaker of an object store."""

import logging
import threading
import time

from storage.errors import StoreUnavailableError

logger = logging.getLogger(__name__)

BREAKER_THRESHOLD = 3
"""Consecutive unanswered attempts after which the store counts as unreachable."""

RETRY_AFTER_S = 1.0
"""Seconds between two attempts while the store is unreachable."""


class CircuitBreaker:
    """A circuit breaker: an unreachable store gets one attempt per second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unanswered = 0
        self._next_try = 0.0
        self._reason = ""

    def require_closed(self) -> None:
        with self._lock:
            if self._unanswered < BREAKER_THRESHOLD:
                return
            now = time.monotonic()
            if now < self._next_try:
                unavailable = StoreUnavailableError("the object store does not answer")
                unavailable.reason = self._reason
                raise unavailable
            self._next_try = now + RETRY_AFTER_S

    def note(self, *, answered: bool, reason: str = "") -> None:
        """Record the result of an attempt. `reason` says why there was no answer."""
        with self._lock:
            self._reason = reason
            before, self._unanswered = self._unanswered, 0 if answered else self._unanswered + 1
            if self._unanswered == BREAKER_THRESHOLD:
                self._next_try = time.monotonic() + RETRY_AFTER_S
                logger.error("the object store does not answer")
        if answered and before >= BREAKER_THRESHOLD:
            logger.warning("the object store answers again")
