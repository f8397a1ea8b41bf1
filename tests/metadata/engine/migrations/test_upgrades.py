"""Upgrades: refused, killed, concurrent and failing ones."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import SchemaError
from registry.metadata import tables
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from registry.metadata.engine.migrate import VERSION, SchemaState
from tests.metadata.engine.migrations.schemas import (
    MIGRATIONS,
    MIN_READER,
    NEXT,
    ROOT,
    fill,
    read_all,
    read_state,
)
from tests.support.servers.postgres import Cluster

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
