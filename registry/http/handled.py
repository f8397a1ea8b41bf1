"""A request that was answered, as metrics and the access log describe it."""

import time
from functools import lru_cache

from msgspec import Struct
from prometheus_client import Counter

from registry import access_log, metrics
from registry.access_log import AccessLine, LoggedCaller, LoggedRequest

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Handled(Struct, frozen=True):
    """A request and its response. `received` and `sent` are the bytes of the bodies."""

    route: str
    request: LoggedRequest
    caller: LoggedCaller
    status: int
    received: int
    sent: int

    def count(self, seconds: float, times: int = 1) -> None:
        """Add the request to the metrics, `times` times. All took `seconds` together."""
        requests, durations = _find_series(self.request.method, self.route, self.status)
        requests.inc(times)
        durations.observe_many(seconds / times, times)
        metrics.REQUEST_BYTES.inc(self.received * times)
        metrics.RESPONSE_BYTES.inc(self.sent * times)

    def log(self, seconds: float, request_id: str, caller: LoggedCaller | None = None) -> None:
        """Write the access line, of the same request by `caller` if it is given."""
        if access_log.is_enabled():
            access_log.write(
                AccessLine(
                    time.time(),
                    request_id,
                    self.request,
                    caller or self.caller,
                    self.status,
                    seconds,
                    self.received,
                    self.sent,
                )
            )


@lru_cache(maxsize=1024)
def _find_series(method: str, route: str, status: int) -> tuple[Counter, metrics.DurationHistogram]:
    method = method if method in _METHODS else "other"
    requests = metrics.REQUESTS.labels(method, route, str(status))
    return requests, metrics.REQUEST_DURATION.labels(method, route)
