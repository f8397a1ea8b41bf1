"""Clock of the registry that a test can advance."""

import pytest
import sqlalchemy as sa

from registry import clock
from registry.metadata.engine.transaction import Transaction


class Hands:
    """Clock of the registry and the database, which can be moved forward.

    Other clocks, by which a process measures intervals, do not move.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0
        real = clock.now_us
        monkeypatch.setattr(clock, "now_us", lambda: real() + self._ahead)
        shared = Transaction.read_clock

        def read_clock(tx: Transaction) -> sa.ColumnElement[int]:
            # SQLite uses the clock of the registry, which is already moved.
            own = tx.connection.dialect.name == "postgresql"
            return shared(tx) + (self._ahead if own else 0)

        monkeypatch.setattr(Transaction, "read_clock", read_clock)

    def forward(self, seconds: float) -> None:
        self._ahead += int(seconds * 1_000_000)
