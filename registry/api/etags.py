"""Conditional requests: entity tags, which are digests in quotes, and dates.

Source: RFC 9110 sections 8.8 and 13.1.
"""

import re
from email.utils import formatdate, parsedate_to_datetime

from starlette.datastructures import Headers

_SECOND = 1_000_000

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')


def parse_etags(header: str, *, weak: bool) -> tuple[str, ...]:
    """The opaque tags listed, or `*`; weak ones only where the comparison may be weak.

    A star in quotes is a tag, one that nothing here has, and stands for nothing else.
    """
    if header.strip() == "*":
        return ("*",)
    listed = _ENTITY_TAG.findall(header)
    return tuple(tag for mark, tag in listed if tag != "*" and (weak or not mark))


def is_unchanged(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` holds the tag: the client has it already."""
    known = parse_etags(header, weak=True) if header else ()
    return "*" in known or etag in known


def format_date(at: int) -> str:
    """A time in microseconds as HTTP writes it, in whole seconds."""
    return formatdate(at // _SECOND, usegmt=True)


def has_current(headers: Headers, etag: str, modified_at: int) -> bool:
    """Whether the client has what it asks for already. `If-None-Match` wins over
    `If-Modified-Since`. `modified_at` in microseconds.
    """
    if "if-none-match" in headers:
        return is_unchanged(headers["if-none-match"], etag)
    since = headers.get("if-modified-since")
    if since is None:
        return False
    try:
        known = parsedate_to_datetime(since).timestamp()
    except (ValueError, OverflowError):
        return False  # what is no date asks for nothing
    return modified_at // _SECOND <= known
