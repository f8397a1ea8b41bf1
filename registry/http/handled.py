"""A request that was answered, as metrics and the access log describe it."""

import time
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import Counter

from registry import access_log, metrics
from registry.access_log import AccessLine, LoggedCaller, LoggedRequest

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class MirrorUse(Struct, frozen=True):
    """The content of a mirror that a request asked for, and whether it was cached.

    `result` is `hit`, `miss` or `stale` if the response is not an error.
    """

    mirror: str
    kind: str
    result: str

    def count(self, status: int, sent: int, times: int) -> None:
        """Add the request to the metrics. Refused requests do not count."""
        result = {404: "unknown"}.get(status, "error" if status >= _SERVER_ERROR else self.result)
        if status < _CLIENT_ERROR or result in {"unknown", "error"}:
            metrics.MIRROR_REQUESTS.labels(self.mirror, self.kind, result).inc(times)
        if status < _CLIENT_ERROR:
            metrics.MIRROR_SENT_BYTES.labels(self.mirror, self.kind).inc(sent * times)


class Handled(Struct, frozen=True):
    """A request and its response. `received` and `sent` are the bytes of the bodies."""

    route: str
    request: LoggedRequest
    caller: LoggedCaller
    status: int
    received: int
    sent: int
    mirror_use: MirrorUse | None = None

    def repeated(self) -> "Handled":
        """Return the same request as a repetition, which finds what was fetched before."""
        if self.mirror_use is None:
            return self
        return replace(self, mirror_use=replace(self.mirror_use, result="hit"))

    def count(self, seconds: float, times: int = 1) -> None:
        """Add the request to the metrics, `times` times. All took `seconds` together."""
        requests, durations = _find_series(self.request.method, self.route, self.status)
        requests.inc(times)
        durations.observe_many(seconds / times, times)
        metrics.REQUEST_BYTES.inc(self.received * times)
        metrics.RESPONSE_BYTES.inc(self.sent * times)
        if self.mirror_use is not None:
            self.mirror_use.count(self.status, self.sent, times)

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
