"""Tests of migrations: up, down and up again, killed, concurrent, and which versions work."""

import ast
import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from registry.errors import SchemaError
from registry.metadata import tables
from registry.metadata.content import pull_times, repositories, uploads
from registry.metadata.engine import leases, migrate
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.migrate import VERSION, SchemaState
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions, unreadable_manifests
from registry.metadata.maintenance import scrub
from registry.metadata.protection import holds, immutable_tags
from tests.metadata.rows import STORE, add, add_access, add_retention, find, image, upload
from tests.support.servers.postgres import Cluster

ROOT = Path(__file__).resolve().parents[3]
MIGRATIONS = ROOT / "migrations"

MIN_READER = 1
"""The oldest version of the code that may use the migrated schema."""

NEXT = f"""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{VERSION:04}"


def upgrade() -> None:
    with op.batch_alter_table("repositories", recreate="auto") as batch:
        batch.alter_column("created_at", existing_type=sa.BigInteger(), nullable=True)
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("UPDATE schema_version SET version = {VERSION + 1}")
"""
"""A future migration that rebuilds a table to which others refer."""


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


def fill(url: str) -> None:
    """Put rows into every table."""

    def work(tx: Transaction) -> None:
        add(tx, image("1"), "latest")
        uploads.insert(tx, upload("a"))
        pending_deletions.insert(tx, STORE, "key", "test")
        leases.claim(tx, "gc", "ann", 60)
        scrub.begin(tx)
        add_access(tx)
        add_retention(tx)
        repositories.delete(tx, find(tx))
        row = add(tx, image("1"), "latest")
        unreadable_manifests.record(tx, find(tx).id, row.digest)
        pull_times.put(tx, [(row.id, "latest", 0)])
        holds.insert(tx, find(tx).id, row.digest, "evidence", None)
        immutable_tags.insert(tx, "team/**", "v*")

    async def job() -> None:
        database = Database(url)
        await database.write(work, actor="ann")
        await database.close()

    asyncio.run(job())


def read_all(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of all tables."""
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    found: dict[str, list[tuple[Any, ...]]] = {}
    with engine.connect() as connection:
        for name in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f'SELECT * FROM "{name}"'))
            found[name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def downgrade(url: str, revision: str = "base") -> None:
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        command.downgrade(migrate.alembic_config(connection), revision)


def read_state(url: str) -> SchemaState:
    async def job() -> SchemaState:
        database = Database(url)
        try:
            return await migrate.read_state(database)
        finally:
            await database.close()

    return asyncio.run(job())


# The present migrations.


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


def test_makes_exactly_what_the_tables_say(
    empty_url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    migrate.upgrade(empty_url)
    with contextlib.ExitStack() as stack:
        other = f"sqlite:///{tmp_path}/created.db"
        if not Database.is_embedded(empty_url):
            cluster: Cluster = request.getfixturevalue("postgres")
            other = stack.enter_context(cluster.database(empty=True))
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


# Which versions may use a schema.


@pytest.mark.anyio
async def test_an_empty_database_is_refused_with_the_remedy(database: Database) -> None:
    assert await migrate.read_state(database) == SchemaState(0, 0)
    with pytest.raises(SchemaError, match=r"is empty.*Run: moorage db upgrade"):
        await migrate.require_current(database)


@pytest.mark.anyio
async def test_a_current_database_is_usable(database: Database, empty_url: str) -> None:
    await asyncio.to_thread(migrate.upgrade, empty_url)
    await migrate.require_current(database)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("version", "min_reader", "complaint"),
    [
        (VERSION - 1, VERSION - 1, "Run: moorage db upgrade"),
        (VERSION, VERSION, None),
        (VERSION + 1, VERSION, None),  # N+1 runs next to N
        (
            VERSION + 2,
            VERSION + 1,
            f"supports schema {VERSION + 1}; this one supports {VERSION}. Inst",
        ),
    ],
)
async def test_a_schema_says_who_may_use_it(
    database: Database, empty_url: str, version: int, min_reader: int, complaint: str | None
) -> None:
    await asyncio.to_thread(migrate.upgrade, empty_url)
    row = {"version": version, "min_reader": min_reader}
    await database.write(
        lambda tx: tx.execute(sa.update(tables.schema_version).values(row)), actor="ann"
    )
    assert (await migrate.read_state(database)).usable is (complaint is None)
    if complaint is None:
        await migrate.require_current(database)
    else:
        with pytest.raises(SchemaError) as caught:
            await migrate.require_current(database)
        assert complaint in caught.value.message


# Failures during an upgrade.


def start(url: str, folder: Path, until: str) -> subprocess.Popen[str]:
    """Start an upgrade in a process that stops before the statement that contains `until`."""
    script = f"""
        import sys, time
        from pathlib import Path
        import sqlalchemy as sa
        from registry.metadata.engine import migrate

        def stop(connection, cursor, statement, parameters, context, many):
            if {until!r} in statement:
                print("there", flush=True)
                time.sleep(600)

        sa.event.listen(sa.Engine, "before_cursor_execute", stop)
        migrate._folder = lambda: Path({str(folder)!r})
        print("ready", flush=True)
        sys.stdin.readline()
        migrate.upgrade({url!r})
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


@pytest.mark.parametrize("until", ["CREATE TABLE notes", "UPDATE alembic_version"])
def test_killed_half_way_it_leaves_the_old_schema_and_can_be_run_again(
    empty_url: str, with_next: Path, monkeypatch: pytest.MonkeyPatch, until: str
) -> None:
    with monkeypatch.context() as before:
        before.setattr(migrate, "_folder", lambda: MIGRATIONS)
        migrate.upgrade(empty_url)
    fill(empty_url)
    filled = read_all(empty_url)
    with start(empty_url, with_next, until) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert read_all(empty_url) == filled
    assert read_state(empty_url) == SchemaState(VERSION, MIN_READER)
    migrate.upgrade(empty_url)
    assert read_state(empty_url) == SchemaState(VERSION + 1, MIN_READER)
    upgraded = read_all(empty_url)
    assert upgraded.pop("notes") == []
    changed = {"schema_version", "alembic_version"}
    assert {n: r for n, r in upgraded.items() if n not in changed} == {
        name: rows for name, rows in filled.items() if name not in changed
    }


def test_ended_by_the_server_it_leaves_the_old_schema(postgres: Cluster, with_next: Path) -> None:
    with postgres.database() as url:
        fill(url)
        filled = read_all(url)
        script = with_next / "versions" / "9999_next.py"
        end = 'op.execute("SELECT pg_terminate_backend(pg_backend_pid())")'
        script.write_text(f"{NEXT}    {end}\n")
        with pytest.raises(SchemaError, match=r"nothing was changed.*terminating connection"):
            migrate.upgrade(url)
        assert read_all(url) == filled
        script.write_text(NEXT)
        migrate.upgrade(url)
        assert read_state(url).version == VERSION + 1


def test_all_that_run_at_once_succeed(empty_url: str) -> None:
    processes = [start(empty_url, MIGRATIONS, "no such statement") for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    endings = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], endings
    assert read_state(empty_url) == SchemaState(VERSION, MIN_READER)
    fill(empty_url)


def test_one_that_orphans_rows_is_taken_back(empty_url: str, with_next: Path) -> None:
    """Foreign keys are off on SQLite then, so only the check before the commit can find it."""
    script = with_next / "versions" / "9999_next.py"
    script.unlink()
    migrate.upgrade(empty_url)
    fill(empty_url)
    filled = read_all(empty_url)
    script.write_text(f"{NEXT}    op.execute('DELETE FROM blobs')\n")
    with pytest.raises((RuntimeError, SchemaError), match=r"without their parents|foreign key"):
        migrate.upgrade(empty_url)
    assert read_all(empty_url) == filled
    assert read_state(empty_url) == SchemaState(VERSION, MIN_READER)


def test_a_database_that_refuses_is_told_in_its_own_words(postgres: Cluster) -> None:
    with postgres.database(empty=True) as url:
        engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text("DROP ROLE IF EXISTS guest"))
            connection.execute(sa.text("CREATE ROLE guest LOGIN"))
        with pytest.raises(SchemaError, match="nothing was changed: permission denied"):
            migrate.upgrade(url.replace("postgres@", "guest@"))
        with pytest.raises(SchemaError, match=r"nothing was changed: .*does not exist"):
            migrate.upgrade(f"{url}-that-is-not-there")
