"""The one clock: whole microseconds since the epoch, in UTC."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """Return the microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(us: int) -> str:
    """Write microseconds since the epoch as `2026-11-23T19:12:00.123456Z`."""
    moment = _EPOCH + timedelta(microseconds=us)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
