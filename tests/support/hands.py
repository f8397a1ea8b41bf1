"""The registry's clock in a test's hands."""

import pytest
import sqlalchemy as sa

from registry import clock
from registry.metadata.transaction import Transaction


class Hands:
    """Moves the clock forward, the database's too. What a process measured by other clocks does
    not move.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + self._ahead)
        shared = Transaction.read_clock

        def read_clock(tx: Transaction) -> sa.ColumnElement[int]:
            # Elsewhere it is the registry's own clock.
            own = tx.connection.dialect.name == "postgresql"
            return shared(tx) + (self._ahead if own else 0)

        monkeypatch.setattr(Transaction, "read_clock", read_clock)

    def forward(self, seconds: float) -> None:
        self._ahead += int(seconds * 1_000_000)
