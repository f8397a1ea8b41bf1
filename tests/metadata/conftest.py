"""Open databases for the tests of `registry.metadata`."""

import pytest
import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test says what time it is, by setting `tx.now`."""
    monkeypatch.setattr(Transaction, "read_clock", lambda tx: sa.literal(tx.now))
