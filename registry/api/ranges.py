"""Ranges of bytes. Source: RFC 9110 section 14."""

import re

from registry.errors import RangeInvalidError, UploadInvalidError

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]+)-([0-9]+)(?:/(?:[0-9]+|\*))?", re.IGNORECASE)
_DIGITS = 19
"""Digits of a position beyond which it lies outside every blob."""


def _position(text: str) -> int:
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS else 10**_DIGITS


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length asked of `size` bytes; None: all of them.

    Several ranges, other units and what is no range at all are answered with everything.
    RangeInvalidError where nothing lies in the range.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    end = size - 1
    if first:
        start = _position(first)
        end = min(_position(last), end) if last else end
    elif size == 0:
        return None  # the last bytes of nothing are all of it
    else:
        start = max(0, size - _position(last))
    if start > end:
        raise RangeInvalidError(size)
    return start, end - start + 1


def parse_content_range(header: str | None) -> tuple[int, int] | None:
    """First byte and length of a chunk; UploadInvalidError for what is no range."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is not None:
        start, last = _position(match[1]), _position(match[2])
        if start <= last:
            return start, last - start + 1
    raise UploadInvalidError(
        "Content-Range must be <first byte>-<last byte>", {"content_range": header[:80]}
    )
