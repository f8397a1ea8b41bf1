"""Timestamps in options and output: an absolute time, or a duration before now."""

from registry import clock
from registry.errors import InputInvalidError
from registry.units import parse_duration


def read_moment(text: str) -> int:
    """Return microseconds since the epoch. Raises InputInvalidError if the text is invalid."""
    try:
        ago = parse_duration(text)
    except ValueError:
        return _read_time(text)
    return clock.now_us() - int(ago * 1_000_000)


def _read_time(text: str) -> int:
    try:
        return clock.read_rfc3339(text)
    except ValueError as error:
        raise InputInvalidError(
            f"invalid time {text[:80]!r}: write 2026-11-23T19:12:00Z, or an age such as 24h"
        ) from error


def write_moment(text: str | None) -> str:
    """Format a timestamp of the API to the second, in UTC as in the logs; `-` for None."""
    return "-" if text is None else f"{text[:10]} {text[11:19]}Z"
