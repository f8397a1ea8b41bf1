"""Open databases for the tests of `registry.metadata`."""

import pytest
import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test set the time of transactions through `tx.now`."""
    monkeypatch.setattr(Transaction, "read_clock", lambda tx: sa.literal(tx.now))
