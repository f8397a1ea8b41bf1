"""Who asks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with a name; the change feed and upload sessions name them."""

    name: str


ANONYMOUS = Principal("anonymous")
"""Anybody, where `[auth] mode` is `none`."""

OPERATOR = Principal("operator")
"""Whoever can run the command line on the data itself."""
