"""Conditional requests: entity tags, which are quoted digests, and dates.

Source: RFC 9110 sections 8.8 and 13.1.
"""

import re
from email.utils import formatdate, parsedate_to_datetime

from starlette.datastructures import Headers

_SECOND = 1_000_000

_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')


def parse_etags(header: str, *, weak: bool) -> tuple[str, ...]:
    """Return the opaque tags in the header, or `*`; weak tags only if `weak` is true.

    A quoted star is an ordinary tag that never matches. It is left out.
    """
    if header.strip() == "*":
        return ("*",)
    listed = _ENTITY_TAG.findall(header)
    return tuple(tag for mark, tag in listed if tag != "*" and (weak or not mark))


def is_unchanged(header: str | None, etag: str) -> bool:
    """Return whether `If-None-Match` contains the tag: the client has the content already."""
    known = parse_etags(header, weak=True) if header else ()
    return "*" in known or etag in known


def format_date(at: int) -> str:
    """Format a time in microseconds as an HTTP date, in whole seconds."""
    return formatdate(at // _SECOND, usegmt=True)


def has_current(headers: Headers, etag: str, modified_at: int) -> bool:
    """Return whether the client already has the current content.

    `If-None-Match` takes precedence over `If-Modified-Since`. `modified_at` is in microseconds.
    """
    if "if-none-match" in headers:
        return is_unchanged(headers["if-none-match"], etag)
    since = headers.get("if-modified-since")
    if since is None:
        return False
    try:
        known = parsedate_to_datetime(since).timestamp()
    except (ValueError, OverflowError):
        return False  # an invalid date is ignored
    return modified_at // _SECOND <= known
