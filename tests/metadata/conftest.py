"""Open databases for the tests of `registry.metadata`."""

import pytest

from tests.support.clock import use_transaction_time


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test set the time of transactions through `tx.now`."""
    use_transaction_time(monkeypatch)
