"""Clocks that a test controls."""

import pytest
import sqlalchemy as sa

from registry import clock
from registry.metadata.engine import statements
from registry.metadata.engine.statements import DatabaseClock, Statement
from registry.metadata.engine.transaction import Transaction

_START = 1_700_000_000_000_000


def use_transaction_time(patch: pytest.MonkeyPatch) -> None:
    """Make the start of a transaction, `tx.now`, the database's clock on PostgreSQL too."""
    patch.setattr(Transaction, "read_clock", lambda tx: sa.literal(tx.now))
    compilers = DatabaseClock.__dict__["_compiler_dispatcher"].specs
    patch.setitem(compilers, "postgresql", compilers["sqlite"])
    # Statements that are compiled already contain the clock of PostgreSQL.
    plans: dict[tuple[Statement, str], statements._Plan] = {}

    def find_plan(statement: Statement, dialect: sa.Dialect) -> statements._Plan:
        key = statement, dialect.name
        if key not in plans:
            plans[key] = statements._Plan(statement._construct, dialect)
        return plans[key]

    patch.setattr(Statement, "_find_plan", find_plan)


class MovableClock:
    """Clock of the registry and the database, which can be moved forward.

    Other clocks, by which a process measures intervals, do not move.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0
        real = clock.now_us
        monkeypatch.setattr(clock, "now_us", lambda: real() + self._ahead)
        use_transaction_time(monkeypatch)

    def forward(self, seconds: float) -> None:
        self._ahead += int(seconds * 1_000_000)


class Clocks:
    """Clock of the database, and monotonic clock of the machine since its boot."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._now = _START
        self._steady = 1_000_000
        self._boot = 1
        patch.setattr(clock, "boottime_us", lambda: self._steady)
        patch.setattr(clock, "boot_id", lambda: str(self._boot))
        patch.setattr(Transaction, "read_clock", lambda _: sa.literal(self._now, sa.BigInteger))

    def now(self) -> int:
        """Return the time of the database clock in microseconds."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Advance both clocks."""
        self._now += int(seconds * 1_000_000)
        self._steady += int(seconds * 1_000_000)

    def jump(self, seconds: float) -> None:
        """Set the database clock forward or back, without the monotonic clock."""
        self._now += int(seconds * 1_000_000)

    def restart(self) -> None:
        """Simulate a reboot: a new boot ID, and a monotonic clock that starts at zero."""
        self._boot += 1
        self._steady = 0
