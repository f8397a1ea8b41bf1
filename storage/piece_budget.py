"""Memory budget of a process for object data that is being sent to clients."""

from collections.abc import Iterator
from contextlib import contextmanager

LARGE_PIECE = 1 << 20
"""Bytes of a piece while the budget lasts; large, so that few calls move much data."""

SMALL_PIECE = 32 << 10
"""Bytes of a piece once the budget is used up."""

TOTAL_BUDGET = 16 << 20
"""Bytes of all large pieces together."""


class PieceBudget:
    """A budget that gives some readers large pieces and all others small ones.

    A client that does not read its response keeps a piece in memory until the server closes the
    connection. With the budget, a thousand such clients keep 48 MiB in memory instead of a
    gigabyte.
    """

    def __init__(self, total: int = TOTAL_BUDGET) -> None:
        self._left = total

    @contextmanager
    def take(self) -> Iterator[int]:
        """Yield the size of the next piece in bytes, which counts against the budget until exit."""
        if self._left < LARGE_PIECE:
            yield SMALL_PIECE
            return
        self._left -= LARGE_PIECE
        try:
            yield LARGE_PIECE
        finally:
            self._left += LARGE_PIECE
