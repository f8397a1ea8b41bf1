"""Moments as people write them: a time, or how long ago."""

from registry import clock
from registry.errors import InputInvalidError
from registry.units import parse_duration


def read_moment(text: str) -> int:
    """Microseconds since the epoch; InputInvalidError."""
    try:
        ago = parse_duration(text)
    except ValueError:
        return _read_time(text)
    return clock.now() - int(ago * 1_000_000)


def _read_time(text: str) -> int:
    try:
        return clock.read_rfc3339(text)
    except ValueError as error:
        raise InputInvalidError(
            f"{text[:80]!r} is no moment: write 2026-11-23T19:12:00Z, or how long ago, such as 24h"
        ) from error


def write_moment(text: str | None) -> str:
    """A time of the API as people read it, to the second; `-` for none. In UTC, as in the logs."""
    return "-" if text is None else f"{text[:10]} {text[11:19]}Z"
