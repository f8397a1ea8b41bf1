"""Byte ranges. Source: RFC 9110 section 14."""

import re

from registry.errors import RangeInvalidError, TooManyRangesError, UploadInvalidError

Part = tuple[int, int]
"""The first byte and the length of a part, which is at least one byte."""

MOST_RANGES = 1024
MOST_HEADER = 20 * 1024
"""The limits on the ranges of a request, and on the bytes of its `Range` header.

podman stays within both.
"""

_UNIT = re.compile(r"bytes=", re.IGNORECASE)
_RANGE = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]+)-([0-9]+)(?:/(?:[0-9]+|\*))?", re.IGNORECASE)
_DIGITS = 19
"""The number of digits above which a position is outside of every blob."""


def _position(text: str) -> int:
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= _DIGITS else 10**_DIGITS


def parse_ranges(header: str | None, size: int) -> list[Part]:
    """Return the requested parts of `size` bytes, in the order of the header; empty for all bytes.

    The result is also empty for other units, for an invalid range, and for ranges that are longer
    together than the content. Of several ranges, those outside of the content are left out.

    Raises RangeInvalidError if all ranges are outside or if one ends before it starts, and
    TooManyRangesError.
    """
    unit = _UNIT.match(header) if header else None
    if header is None or unit is None:
        return []
    if len(header) > MOST_HEADER:
        raise TooManyRangesError(MOST_RANGES, MOST_HEADER)
    texts = [text for text in header[unit.end() :].split(",") if text.strip(" \t")]
    if len(texts) > MOST_RANGES:
        raise TooManyRangesError(MOST_RANGES, MOST_HEADER)
    parts: list[Part] = []
    for text in texts:
        match = _RANGE.fullmatch(text)
        if match is None or match.groups() == ("", ""):
            return []
        if size == 0 and not match[1]:
            return []  # the last bytes of empty content are all of it
        part = _cut(match[1], match[2], size)
        if part is not None:
            parts.append(part)
    if texts and not parts:
        raise RangeInvalidError(size)
    return parts if sum(length for _, length in parts) <= size else []


def _cut(first: str, last: str, size: int) -> Part | None:
    """Return a range of `size` bytes; None if it is outside.

    Raises RangeInvalidError if it ends before it starts.
    """
    if not first:
        start, end = max(0, size - _position(last)), size
    else:
        start, end = _position(first), min(_position(last) + 1, size) if last else size
        if last and _position(last) < start:
            raise RangeInvalidError(size)
    return (start, end - start) if start < end else None


def parse_content_range(header: str | None) -> tuple[int, int] | None:
    """Return the first byte and the length of a chunk; raise UploadInvalidError."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is not None:
        start, last = _position(match[1]), _position(match[2])
        if start <= last:
            return start, last - start + 1
    raise UploadInvalidError(
        "Content-Range must have the form FIRST-LAST, with the positions of the first and last "
        "byte",
        {"content_range": header[:80]},
    )
