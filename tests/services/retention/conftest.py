"""Fixtures: an open database with a retention service."""

import pytest

from registry.metadata.engine.database import Database
from registry.services.retention.retention import Retention
from tests.services.gc.conftest import clocks

__all__ = ["clocks"]

GRACE = 3600
"""Seconds."""


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database, interval=3600, grace=GRACE)
