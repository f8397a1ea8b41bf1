"""All rows arrive, or nothing changes."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from registry.errors import (
    ConflictError,
    DatabaseFrozenError,
    DatabaseUnavailableError,
    SchemaError,
)
from registry.metadata import tables
from registry.metadata.access import audit
from registry.metadata.content import repositories
from registry.metadata.engine import migrate, write_freeze
from registry.metadata.engine.database import parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.maintenance import database_copy
from registry.oci.names import RepositoryName
from registry.services.maintenance.database_transfer import Transfer
from storage.digest import Digest
from tests.metadata.engine.migrations.schemas import fill, read_all
from tests.services.migration.db_copy.helpers import (
    _EVENT,
    all_ways,
    both_ways,
    no_keys,
    opened,
    rows_of,
    transfer,
    write_one,
)

pytestmark = pytest.mark.anyio


@all_ways
async def test_all_rows_arrive_as_they_are(urls: tuple[str, str]) -> None:
    source, target = urls
    await asyncio.to_thread(fill, source)
    before = rows_of(source)
    assert [name for name, rows in before.items() if not rows] == []
    counts = await transfer(source, target)
    assert rows_of(target) == before
    assert counts == {name: len(rows) for name, rows in before.items()}
    assert set(counts) == set(tables.metadata.tables) - {"schema_version", "write_freeze"}
    assert read_all(target)["write_freeze"] == []
    await write_one(target)
    with pytest.raises(DatabaseFrozenError):
        await write_one(source)
    async with opened(source) as database:
        state = await migrate.read_state(database)
        assert state.usable
        assert state.move is not None
        assert (state.move.state, state.move.is_expired) == (MoveState.MOVED, False)
        with pytest.raises(ConflictError, match=r"was moved to .*--release"):
            await Transfer(database).run(target, no_keys, keep=False, tell=lambda *_: None)
        await Transfer(database).release()
    await write_one(source)
    assert read_all(source)["write_freeze"] == []


@both_ways
async def test_numbers_that_were_used_are_not_used_again(urls: tuple[str, str]) -> None:
    source, target = urls

    def use(tx: Transaction) -> int:
        for _ in range(5):
            audit.insert(tx, **_EVENT)
        last = repositories.ensure(tx, RepositoryName("first"))
        tx.execute(sa.delete(tables.repositories))
        tx.execute(sa.delete(tables.audit_log))
        return last.id

    async with opened(source) as database:
        last = await database.write(use, actor="ann")
    await transfer(source, target)
    async with opened(target) as database:
        again = await database.write(
            lambda tx: repositories.ensure(tx, RepositoryName("new")), actor="ann"
        )
        await database.write(lambda tx: audit.insert(tx, **_EVENT), actor="ann")
        number = await database.read(
            lambda tx: tx.execute(sa.select(tables.audit_log.c.id)).scalar_one()
        )
    assert again.id == last + 1
    assert number == 6


async def test_a_kept_one_goes_on(urls: tuple[str, str]) -> None:
    source, target = urls
    await asyncio.to_thread(fill, source)
    await transfer(source, target, keep=True)
    await write_one(source)
    await write_one(target)


async def test_what_is_not_empty_is_left_alone(urls: tuple[str, str]) -> None:
    source, target = urls
    await write_one(target, "precious")
    before = rows_of(target)
    with pytest.raises(ConflictError, match="not empty"):
        await transfer(source, target)
    assert rows_of(target) == before
    await write_one(source)
    with pytest.raises(ConflictError, match="that the registry already uses"):
        await transfer(source, source)
    await write_one(source)


@both_ways
@pytest.mark.parametrize("step", ["_require_digests", "_set_counters"])
async def test_one_that_fails_changes_nothing(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source, target = urls
    await asyncio.to_thread(fill, source)

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("gone", None, Exception("gone"))

    with monkeypatch.context() as failing:
        failing.setattr(database_copy, step, fail)
        with pytest.raises(DatabaseUnavailableError, match="nothing was changed"):
            await transfer(source, target)
    alone = {
        "change_feed_revision",
        "policy_revision",
        "gc_state",
    }  # tables that always have one row
    assert all(rows == [] for name, rows in rows_of(target).items() if name not in alone)
    await write_one(source)
    await transfer(source, target)
    assert rows_of(target) == rows_of(source)


@both_ways
async def test_one_that_was_killed_leaves_the_source_to_its_servers(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy filled the target and died. The write freeze of the source expires by itself."""
    source, target = urls
    await asyncio.to_thread(fill, source)

    def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr("registry.services.maintenance.database_transfer.LEASE_S", 1.0)
        dying.setattr(Transfer, "_end", killed)
        dying.setattr(Transfer, "release", killed)
        async with opened(source) as database:
            with pytest.raises(SystemExit):
                await Transfer(database).run(target, no_keys, keep=False, tell=lambda *_: None)
    async with opened(target) as database:
        with pytest.raises(SchemaError, match="did not finish"):
            await migrate.require_current(database)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(DatabaseFrozenError):
                await write_one(source)
                break
            await asyncio.sleep(0.1)
    await transfer(source, target)
    assert rows_of(target) == rows_of(source)


async def test_one_that_was_killed_at_its_very_end_is_brought_there(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = urls

    async def killed(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(Transfer, "_confirm", killed)
        with pytest.raises(SystemExit):
            await transfer(source, target)
    with pytest.raises(DatabaseFrozenError):
        await write_one(source)
    assert await transfer(source, target) == {}
    await write_one(target)


async def test_a_pause_that_has_ended_cannot_be_finished(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the copy missed may have happened since the freeze ended."""
    source, target = urls
    fill_in = database_copy.copy

    def slow(*arguments: Any, **more: Any) -> dict[str, int]:
        done = fill_in(*arguments, **more)
        asyncio.run(_expire(source))
        asyncio.run(write_one(source))
        return done

    monkeypatch.setattr(database_copy, "copy", slow)
    with pytest.raises(DatabaseFrozenError, match="accepts writes again"):
        await transfer(source, target)
    await write_one(source, "more")
    async with opened(target) as database:
        assert not (await migrate.read_state(database)).usable


async def _expire(url: str) -> None:
    async with opened(url) as database:
        await database.write(
            lambda tx: tx.execute(sa.update(tables.write_freeze).values(expires_at=1)), actor="test"
        )


@both_ways
async def test_what_changed_on_the_way_is_found(
    urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the comparison."""
    source, target = urls
    await asyncio.to_thread(fill, source)
    iterate = database_copy.iter_rows

    def drop(connection: sa.Connection, table: sa.Table) -> Iterator[list[database_copy.Row]]:
        wrong = connection.engine.url == parse_url(target) and table.name == "tags"
        return iter([]) if wrong else iterate(connection, table)

    with monkeypatch.context() as dropping:
        dropping.setattr(database_copy, "iter_rows", drop)
        with pytest.raises(ConflictError, match="the table tags does not match"):
            await transfer(source, target)
    async with opened(source) as database:
        await database.write(
            lambda tx: tx.execute(sa.update(tables.manifest_bytes).values(bytes=b"spoiled")),
            actor="test",
        )
    with pytest.raises(ConflictError, match="do not match its digest"):
        await transfer(source, target)
    await write_one(source)


@both_ways
async def test_whoever_writes_is_refused(urls: tuple[str, str]) -> None:
    """The database itself refuses the write, also to a client that knows nothing of the freeze."""
    source, _ = urls
    async with opened(source) as database:
        await database.write(lambda tx: write_freeze.freeze(tx, "t", "place", 60), actor="")
        engine = sa.create_engine(parse_url(source), poolclass=sa.NullPool)
        for table in database_copy.list_tables():
            row = {column.name: _some(column) for column in table.columns}
            with (
                engine.connect() as connection,
                pytest.raises(sa.exc.DBAPIError, match=write_freeze.REFUSAL),
            ):
                connection.execute(sa.insert(table).values(**row))
        with pytest.raises(ConflictError, match="is being copied"):
            await database.write(lambda tx: write_freeze.freeze(tx, "u", "place", 60), actor="")
        assert not await database.write(lambda tx: write_freeze.extend(tx, "u", 60), actor="")
        assert await database.write(lambda tx: write_freeze.extend(tx, "t", 60), actor="")


def _some(column: sa.Column[Any]) -> object:
    kind = column.type
    if isinstance(kind, tables.DigestText):
        return Digest.of(b"x")
    if isinstance(kind, tables.NameText):
        return RepositoryName("x")
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.LargeBinary):
        return b"x"
    return 1 if isinstance(kind, sa.Integer) else "x"
