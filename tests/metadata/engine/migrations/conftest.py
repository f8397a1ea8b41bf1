"""Databases without a schema, and a future migration."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from tests.metadata.engine.migrations.schemas import (
    MIGRATIONS,
    NEXT,
)
from tests.support.servers.postgres import Cluster


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database without a schema, on each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/moorage.db"
    else:
        cluster: Cluster = request.getfixturevalue("postgres")
        with cluster.database(empty=True) as url:
            yield url


@pytest.fixture
def with_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the migrations and one future migration."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_next.py").write_text(NEXT)
    monkeypatch.setattr(migrate, "_folder", lambda: folder)
    return folder


@pytest.fixture
async def database(empty_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(empty_url)
    yield opened
    await opened.close()
