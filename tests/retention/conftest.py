"""An open database with retention on it."""

import pytest

from registry.metadata.database import Database
from registry.services.retention import Retention


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database, interval=3600, grace=3600)
