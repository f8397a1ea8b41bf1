"""Fixtures of the revision watch."""

from collections.abc import AsyncIterator, Iterator

import pytest
import sqlalchemy as sa

from registry.metadata.engine.database import Database
from registry.metadata.revisions.watch import RevisionWatch


@pytest.fixture
async def other(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    """Yield another process's access to the same database."""
    del anyio_backend
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def watch(database: Database) -> Iterator[RevisionWatch]:
    made = RevisionWatch(database)
    yield made
    made.close()


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """Yield the statements that readers send to the database."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(database._reader, "before_cursor_execute", note)
    yield asked
    sa.event.remove(database._reader, "before_cursor_execute", note)
