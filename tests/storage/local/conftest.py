"""Fixtures of the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.storage.local.helpers import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()
