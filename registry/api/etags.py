"""Entity tags: a digest in quotes. Source: RFC 9110 sections 8.8.3 and 13.1."""

import re

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
