"""Clocks in the hands of a test."""

import pytest
import sqlalchemy as sa

from registry import clock
from registry.metadata.transaction import Transaction

_START = 1_700_000_000_000_000


class Clocks:
    """The database's clock, and that of the machine since its start, which nobody sets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = _START
        self._steady = 1_000_000
        self._boot = 1
        patch.setattr(clock, "steady", lambda: self._steady)
        patch.setattr(clock, "boot", lambda: str(self._boot))
        patch.setattr(Transaction, "read_clock", lambda _: sa.literal(self._now, sa.BigInteger))

    def now(self) -> int:
        """Microseconds by the database's clock."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time go by."""
        self._now += int(seconds * 1_000_000)
        self._steady += int(seconds * 1_000_000)

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self._now += int(seconds * 1_000_000)

    def restart(self) -> None:
        """Start the machine anew."""
        self._boot += 1
        self._steady = 0
