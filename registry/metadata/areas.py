"""The repositories that a pattern speaks of, as a condition on their names.

Source: registry/auth/patterns.py, which reads and checks patterns. One more is known here: `*/**`
is whatever is in a namespace.
"""

from typing import Any

import sqlalchemy as sa

from registry.metadata.tables import TEXT

EACH = "*/**"
"""The repositories of every namespace, by namespace."""

_FIRST = "0"
"""Every name begins with this or a later character; what is no repository's does not."""


def is_within(column: sa.ColumnElement[Any], pattern: str) -> sa.ColumnElement[bool]:
    """Whether the name in the column is one that the pattern speaks of: a range of an index."""
    name = sa.type_coerce(column, TEXT)
    if pattern == EACH:
        return sa.and_(name >= _FIRST, name.contains("/"))
    head, slash, tail = pattern.rpartition("/")
    if tail not in {"*", "**"}:
        return name == pattern
    # "0" follows "/" at once.
    below = sa.and_(name > f"{head}/", name < f"{head}0") if slash else name >= _FIRST
    if tail == "**":
        return below
    parts = sa.func.length(name) - sa.func.length(sa.func.replace(name, "/", ""))
    return sa.and_(below, parts == f"{head}{slash}".count("/"))
