"""Clock of the registry, in whole microseconds since the epoch (UTC)."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """Return the microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(us: int) -> str:
    """Format microseconds since the epoch as `2026-11-23T19:12:00.123456Z`."""
    moment = _EPOCH + timedelta(microseconds=us)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def read_rfc3339(text: str) -> int:
    """Return the microseconds since the epoch of an RFC 3339 time with an offset.

    Raises ValueError if the text is invalid, has no offset, or is outside the years 1 to 9999 in
    UTC.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time says no offset from UTC")
    try:
        return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
    except OverflowError as error:
        raise ValueError("the time is in no year that UTC has") from error


def boottime_us() -> int:
    """Return the microseconds since the machine started, including sleep.

    Nobody can set this clock.
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


def boot_id() -> str:
    """Return the ID that the kernel gives to each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def minute_of_day() -> int:
    """Return the minutes since midnight in the time zone of the machine."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min
