"""Repository patterns as SQL conditions on repository names.

`registry/auth/policy/patterns.py` parses and checks patterns. This module adds one pattern:
`*/**`, all repositories that are in a namespace.
"""

from typing import Any

import sqlalchemy as sa

from registry.metadata.tables import TEXT

EACH = "*/**"
"""All repositories that are in a namespace, counted for each namespace separately."""

_FIRST = "0"
"""Every repository name begins with this or a later character; other values in the column do not.
"""


def matches_pattern(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Return the condition that the name in the column matches the pattern, as an index range."""
    name = sa.type_coerce(column, TEXT)
    if pattern == EACH:
        return sa.and_(name >= _FIRST, name.contains("/"))
    head, slash, tail = pattern.rpartition("/")
    if tail not in {"*", "**"}:
        return name == pattern
    # "0" is the character after "/".
    below = sa.and_(name > f"{head}/", name < f"{head}0") if slash else name >= _FIRST
    if tail == "**":
        return below
    parts = sa.func.length(name) - sa.func.length(sa.func.replace(name, "/", ""))
    return sa.and_(below, parts == f"{head}{slash}".count("/"))
