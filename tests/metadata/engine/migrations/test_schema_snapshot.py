"""An empty SQLite database gets its schema from a snapshot of what the migrations make."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import SchemaError
from registry.metadata.engine import migrate, schema_snapshot
from registry.metadata.engine.migrate import VERSION, SchemaState
from tests.metadata.engine.migrations.schemas import MIGRATIONS, MIN_READER, read_all, read_state
from tests.support import schema_snapshot as committed


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/moorage.db"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the snapshot, which upgrades use."""
    copied = shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    monkeypatch.setattr(migrate, "_folder", lambda: copied)
    return copied / schema_snapshot.NAME


def read_schema(url: str) -> tuple[set[tuple[str, str]], str]:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as opened:
        [[mode]] = opened.execute("PRAGMA journal_mode")
        made = set(opened.execute("SELECT name, sql FROM sqlite_master"))
    opened.close()
    return made, mode


def test_the_committed_snapshot_is_that_of_the_migrations() -> None:
    assert committed.SNAPSHOT.read_text() == committed.render(), f"run: {committed.COMMAND}"


def test_makes_what_the_migrations_make(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated = tmp_path / "migrated.db"
    committed.migrate_empty(migrated)
    with monkeypatch.context() as without:
        without.setattr(migrate, "run_migrations", lambda _: pytest.fail("a migration ran"))
        migrate.upgrade(url)
    assert read_schema(url) == read_schema(f"sqlite:///{migrated}")
    assert read_all(url) == read_all(f"sqlite:///{migrated}")


def test_an_older_snapshot_is_completed_by_migrations(
    url: str, with_next: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (with_next / schema_snapshot.NAME).exists()
    monkeypatch.setattr(migrate, "VERSION", VERSION + 1)
    migrate.upgrade(url)
    assert read_state(url) == SchemaState(VERSION + 1, MIN_READER)
    assert read_all(url)["notes"] == []


def test_a_snapshot_that_fails_changes_nothing(url: str, snapshot: Path) -> None:
    text = snapshot.read_text()
    snapshot.write_text(text + "INSERT INTO absent VALUES (1);\n")
    with pytest.raises(SchemaError, match="nothing was changed: no such table"):
        migrate.upgrade(url)
    assert read_schema(url)[0] == set()
    snapshot.write_text(text)
    migrate.upgrade(url)
    assert read_state(url) == SchemaState(VERSION, MIN_READER)


def test_a_database_that_is_not_empty_is_migrated(url: str, snapshot: Path) -> None:
    migrate.upgrade(url)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE own (id INTEGER)")
    before = read_schema(url)
    snapshot.write_text("this is not SQL")
    migrate.upgrade(url)
    assert read_schema(url) == before
