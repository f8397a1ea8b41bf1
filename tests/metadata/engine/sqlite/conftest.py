"""An SQLite database and its writer."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from registry import clock
from registry.metadata.engine import migrate, sqlite
from registry.metadata.engine.database import Database
from registry.metadata.engine.sqlite import SqliteWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate.upgrade(f"sqlite:///{tmp_path}/moorage.db")
    return tmp_path / "moorage.db"


@pytest.fixture
async def database(path: Path, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(f"sqlite:///{path}")
    yield opened
    await opened.close()


@pytest.fixture
def writer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteWriter]:
    # A group never times out: its size depends on the test, not on the load of the machine.
    monkeypatch.setattr(sqlite, "BATCH_SECONDS", 60)
    opened = SqliteWriter(path, clock.now_us)
    yield opened
    opened.close()
