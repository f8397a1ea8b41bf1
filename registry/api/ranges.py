"""Ranges of bytes. Source: RFC 9110 section 14."""

import re

from registry.errors import RangeInvalidError, UploadInvalidError

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/(?:[0-9]{1,19}|\*))?")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and length asked of `size` bytes; None: all of them.

    Several ranges, other units and what is no range at all are answered with everything.
    RangeInvalidError where nothing lies in the range.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
        if last and int(last) < start:
            raise RangeInvalidError(size)
    if start > end:
        raise RangeInvalidError(size)
    return start, end - start + 1


def parse_content_range(header: str | None) -> tuple[int, int] | None:
    """First byte and length of a chunk; UploadInvalidError for what is no range."""
    if header is None:
        return None
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise UploadInvalidError(
            "Content-Range must be <first byte>-<last byte>", {"content_range": header[:80]}
        )
    return int(match[1]), int(match[2]) - int(match[1]) + 1
