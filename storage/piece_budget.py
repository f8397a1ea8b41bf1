"""Memory of a process for pieces of objects that are on their way to clients."""

from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 1 << 20
"""Bytes of a piece while the budget lasts: few calls for much data."""

SMALL = 32 << 10
"""Bytes of a piece beyond the budget."""

TOTAL = 16 << 20
"""Bytes that large pieces may take together."""


class PieceBudget:
    """Lets a bounded number of readers read in large pieces, and all others in small ones.

    A client that does not read its response keeps a piece in memory until the server cuts it. With
    a budget, a thousand such clients keep 48 MiB of pieces and not a gigabyte.
    """

    def __init__(self, total: int = TOTAL) -> None:
        self._left = total

    @contextmanager
    def take(self) -> Iterator[int]:
        """Yield the size of the next piece in bytes; the piece is in memory until the exit."""
        if self._left < LARGE:
            yield SMALL
            return
        self._left -= LARGE
        try:
            yield LARGE
        finally:
            self._left += LARGE
