"""Migrations make the schema that the tables declare, up, down and up again."""

import ast
import contextlib
import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from registry.metadata import tables
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.migrate import VERSION, SchemaState
from tests.metadata.engine.migrations.schemas import (
    MIGRATIONS,
    MIN_READER,
    downgrade,
    fill,
    read_all,
    read_state,
)
from tests.support.servers.postgres import Cluster


def test_goes_up_down_and_up_again_with_rows_in_every_table(empty_url: str) -> None:
    for _ in range(2):
        migrate.upgrade(empty_url)
        migrate.upgrade(empty_url)  # nothing to do
        assert read_state(empty_url) == SchemaState(VERSION, MIN_READER)
        fill(empty_url)
        filled = read_all(empty_url)
        assert set(filled) == {*tables.metadata.tables, "alembic_version"}
        assert [name for name, rows in filled.items() if not rows] == ["write_freeze"]
        downgrade(empty_url)
        assert read_all(empty_url) == {"alembic_version": []}
        assert read_state(empty_url) == SchemaState(0, 0)


def test_makes_what_the_tables_say(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    engine = sa.create_engine(parse_url(empty_url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []


CATALOGUE = {
    "sqlite": ["SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"],
    "postgresql": [
        """SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
           FROM information_schema.columns WHERE table_schema = 'public'""",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
           WHERE connamespace = 'public'::regnamespace""",
    ],
}
"""What Alembic does not compare: collations, AUTOINCREMENT, the columns of foreign keys."""


def read_catalogue(url: str) -> set[tuple[str, ...]]:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found: set[tuple[str, ...]] = set()
    with engine.connect() as connection:
        for query in CATALOGUE[engine.dialect.name]:
            for row in connection.execute(sa.text(query)):
                name, *rest = (normal(str(value)) for value in row)
                if not name.startswith("alembic_version"):
                    found.add((name, *rest))
    return found


def normal(definition: str) -> str:
    """Return the definition with its parts sorted, so that order and line breaks do not matter.

    SQLite adds a column to the original text of a table.
    """
    parts = re.split(r",\s|\n", definition.removesuffix(")"))
    return "\n".join(sorted(part.strip(" ,\t") for part in parts if part.strip(" ,\t)")))


def add_conditions_of_postgres() -> None:
    """Give partial indexes the same condition on PostgreSQL as on SQLite.

    The tables have only that of SQLite, because the other one imports the dialect of PostgreSQL.
    """
    for table in tables.metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options["sqlite"]["where"]
            index.dialect_options["postgresql"]["where"] = condition


def test_makes_exactly_what_the_tables_say(
    empty_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    migrate.upgrade(empty_url)
    with contextlib.ExitStack() as stack:
        other = f"sqlite:///{tmp_path}/created.db"
        if not Database.is_embedded(empty_url):
            cluster: Cluster = request.getfixturevalue("postgres")
            other = stack.enter_context(cluster.database(empty=True))
            add_conditions_of_postgres()
        tables.metadata.create_all(sa.create_engine(other, poolclass=sa.NullPool))
        assert read_catalogue(empty_url) == read_catalogue(other)


def test_texts_compare_by_bytes(postgres: Cluster) -> None:
    columns = read_catalogue(postgres.url("moorage_template"))
    free = {row[:2] for row in columns if "text" in row and row[-1] != "C"}
    assert free == {
        ("audit_log", "detail"),
        ("manifests", "annotations"),
        ("secrets", "scopes"),
        ("signing_keys", "jwk"),
        ("uploads", "parts"),
    }


def test_the_newest_is_the_version_of_this_code() -> None:
    folder = ScriptDirectory(str(MIGRATIONS))
    assert folder.get_heads() == [f"{VERSION:04}"]


@pytest.mark.parametrize("path", sorted(MIGRATIONS.rglob("*.py")), ids=lambda path: path.name)
def test_imports_nothing_that_changes_with_the_code(path: Path) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])
    assert imported
    assert imported <= {"alembic", "sqlalchemy"}


def test_migrations_are_found_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "registry" / "metadata" / "engine"
    code.mkdir(parents=True)
    monkeypatch.setattr(migrate, "__file__", str(code / "migrate.py"))
    assert migrate._folder() == tmp_path / "migrations"  # a checkout
    installed = tmp_path / "registry" / "migrations"
    shutil.copytree(MIGRATIONS, installed)
    assert migrate._folder() == installed
    migrate.upgrade(f"sqlite:///{tmp_path}/moorage.db")
    assert read_state(f"sqlite:///{tmp_path}/moorage.db").version == VERSION
