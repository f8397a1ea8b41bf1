"""Open databases for the tests of `registry.metadata`."""

import pytest
import sqlalchemy as sa

from registry.metadata.engine import statements
from registry.metadata.engine.statements import DatabaseClock, Statement
from registry.metadata.engine.transaction import Transaction


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test set the time of transactions through `tx.now`."""
    monkeypatch.setattr(Transaction, "read_clock", lambda tx: sa.literal(tx.now))
    compilers = DatabaseClock.__dict__["_compiler_dispatcher"].specs
    monkeypatch.setitem(compilers, "postgresql", compilers["sqlite"])
    # Statements that other tests have compiled contain the database's own clock.
    monkeypatch.setattr(
        Statement, "_find_plan", lambda self, dialect: statements._Plan(self._construct, dialect)
    )
