"""Tests of prepared statements: same text, rows and errors as a statement run by SQLAlchemy."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from registry.errors import DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.engine.database import Database
from registry.metadata.engine.statements import (
    DatabaseClock,
    Statement,
    bind,
    bind_limit,
    insert_into,
)
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import blobs, manifest_bytes, manifests, tags
from registry.oci.references import Tag
from tests.metadata.rows import NAME, add, digest, digest_of, image

pytestmark = pytest.mark.anyio

_m, _b, _t = manifests.c, blobs.c, tags.c

IMAGE = image("one")

# Digests, names, bytes, nullable columns, an expression, a constant and NULL.
MIXED = (
    sa.select(
        _m.id,
        _m.digest,
        tables.repositories.c.name,
        manifest_bytes.c.bytes,
        _m.subject,
        sa.func.coalesce(_m.first_pushed_at, _m.pushed_at),
        sa.literal("constant"),
        sa.null(),
        (_m.size > 10).label("large"),
    )
    .join(tables.repositories, tables.repositories.c.id == _m.repository_id)
    .join(manifest_bytes, manifest_bytes.c.manifest_id == _m.id)
    .where(tables.repositories.c.name == sa.bindparam("name"))
    .where(_m.media_type != "other", _m.size > sa.bindparam("size"))
    .where(sa.type_coerce(_m.digest, tables.TEXT).like("sha%"))
    .limit(bind_limit())
)
SUM = sa.select(sa.func.sum(_m.size), sa.func.count(), sa.func.max(_m.digest, type_=_m.digest.type))
LISTED = sa.select(_b.digest).where(_b.digest.in_(sa.bindparam("digests"))).order_by(_b.digest)
CLOCK = Statement(sa.select(DatabaseClock()))
INSERT_BLOB = Statement(
    insert_into(blobs)
    .values(bind("digest", "size", "store", "key", "state", "created_at"))
    .on_conflict_do_nothing(index_elements=[_b.digest])
)
RETAG = Statement(
    sa.update(tags)
    .where(_t.name == sa.bindparam("tag"))
    .values(bind("updated_at"))
    .returning(_t.name, _t.digest)
)


def blob(seed: str) -> dict[str, Any]:
    row = {"digest": digest(seed), "size": 1, "store": "s", "key": seed}
    return row | {"state": "live", "created_at": 1}


async def filled(database: Database) -> Database:
    await database.write(lambda tx: add(tx, IMAGE, "v1", "v2"), actor="ann")
    return database


async def test_rows_are_those_of_sqlalchemy(database: Database) -> None:
    await filled(database)
    mixed, total = Statement(MIXED), Statement(SUM)

    def work(tx: Transaction) -> None:
        values = {"name": NAME, "size": 1, "n": 10}
        expected = [tuple(row) for row in tx.connection.execute(MIXED, values)]
        assert len(expected) == 1
        for _ in range(2):
            assert tx.fetch_all(mixed, **values) == expected
            assert tx.fetch_one(mixed, **values) == expected[0]
        assert tx.fetch_all(mixed, **values | {"n": 0}) == []
        assert tx.fetch_all(total) == [tuple(row) for row in tx.execute(SUM)]
        types = [type(each) for each in expected[0]]
        assert [type(each) for each in tx.fetch_all(mixed, **values)[0]] == types

    await database.read(work)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 500])
async def test_a_list_takes_any_number_of_values(database: Database, count: int) -> None:
    listed = Statement(LISTED)
    seeds = [f"{number}" for number in range(count)]
    await database.write(
        lambda tx: tx.run_each(INSERT_BLOB, [blob(seed) for seed in [*seeds, "other"]]), actor=""
    )
    found = await database.read(
        lambda tx: tx.fetch_values(listed, digests=[digest(seed) for seed in seeds])
    )
    assert found == sorted(digest(seed) for seed in seeds)


async def test_lists_of_all_lengths_share_few_texts(database: Database) -> None:
    listed = Statement(LISTED)
    seen: set[str] = set()
    note = _listen(database, lambda text, _: seen.add(text))

    def work(tx: Transaction) -> None:
        for length in range(1, 300):
            tx.fetch_all(listed, digests=[digest("a")] * length)

    await database.read(work)
    sa.event.remove(database._reader, "before_cursor_execute", note)
    assert len([text for text in seen if "blobs" in text]) == 10


async def test_changes_are_counted_and_returned(database: Database) -> None:
    await filled(database)

    def work(tx: Transaction) -> None:
        assert tx.run(INSERT_BLOB, **blob("new")) == 1
        assert tx.run(INSERT_BLOB, **blob("new")) == 0
        tx.run_each(INSERT_BLOB, [blob("new"), blob("more"), blob("most")])
        tx.run_each(INSERT_BLOB, [])
        digests = [digest("new"), digest("more"), digest("most")]
        assert len(tx.fetch_all(Statement(LISTED), digests=digests)) == 3
        tag = str(Tag("v1"))
        assert tx.fetch_all(RETAG, tag=tag, updated_at=7) == [(tag, digest_of(IMAGE))]
        assert tx.fetch_one(RETAG, tag="none", updated_at=7) is None

    await database.write(work, actor="")


@pytest.mark.parametrize("values", [{}, {"digests": [], "other": 1}, {"other": []}])
async def test_names_must_be_those_of_the_statement(
    database: Database, values: dict[str, Any]
) -> None:
    listed = Statement(LISTED)
    with pytest.raises(TypeError, match="takes"):
        await database.read(lambda tx: tx.fetch_all(listed, **values))


async def test_one_row_is_not_several(database: Database) -> None:
    every = Statement(sa.select(_b.digest))
    await database.write(lambda tx: tx.run_each(INSERT_BLOB, [blob("one"), blob("two")]), actor="")

    def work(tx: Transaction) -> None:
        with pytest.raises(sa.exc.MultipleResultsFound):
            tx.fetch_value(every)

    await database.read(work)


async def test_a_statement_is_compiled_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = Statement(LISTED)
    await database.read(lambda tx: tx.fetch_all(listed, digests=[digest("a")]))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(sa.Select, "compile", refuse)
    await database.read(lambda tx: tx.fetch_all(listed, digests=[digest("b")]))


async def test_listeners_see_the_statement(database: Database) -> None:
    seen: list[tuple[str, Any]] = []
    note = _listen(database, lambda text, values: seen.append((text, values)))
    await database.read(lambda tx: tx.fetch_all(Statement(LISTED), digests=[digest("a")]))
    sa.event.remove(database._reader, "before_cursor_execute", note)
    ((_, values),) = [each for each in seen if "FROM blobs" in each[0]]
    assert str(digest("a")) in (values.values() if isinstance(values, dict) else values)


async def test_the_clock_is_that_of_the_database(database: Database) -> None:
    async def read(tx_now: int) -> int:
        def work(tx: Transaction) -> int:
            tx.now = tx_now
            clock: int = tx.fetch_value(CLOCK)
            own = tx.execute(sa.select(tx.read_clock())).scalar_one()
            assert abs(own - clock) < 10_000_000
            return clock

        return await database.read(work)

    assert (await read(5) == 5) == database.embedded


@pytest.mark.parametrize("table", [blobs, tags, manifests])
def test_an_upsert_has_one_text_for_both_databases(table: sa.Table) -> None:
    """PostgreSQL's insert and SQLite's own compile to the same text for SQLite."""
    texts = set()
    for each in (postgresql.insert, sqlite.insert):
        values = bind(*table.columns.keys())
        rows = each(table).values(values)
        first, *others = table.primary_key.columns
        changed = {first.name: rows.excluded[first.name]}
        upsert = rows.on_conflict_do_update(
            index_elements=[first, *others], set_=changed, where=first != rows.excluded[first.name]
        )
        nothing = rows.on_conflict_do_nothing(index_elements=[first, *others])
        texts.add(
            tuple(
                str(one.returning(first).compile(dialect=sqlite.dialect()))
                for one in (upsert, nothing)
            )
        )
    assert len(texts) == 1


BROKEN = Statement(sa.select(sa.column("x")).select_from(sa.table("no_such_table")))
TWICE = Statement(sa.insert(blobs).values(bind(*blobs.c.keys())))


def _raise(tx: Transaction, statement: Statement, core: sa.Executable, **values: Any) -> None:
    """Require the same error of a prepared statement and of SQLAlchemy, both in savepoints."""
    errors: list[sa.exc.DBAPIError] = []
    for run in (lambda: tx.run(statement, **values), lambda: tx.connection.execute(core, values)):
        with pytest.raises(sa.exc.DBAPIError) as caught, tx.connection.begin_nested():
            run()
        errors.append(caught.value)
    mine, theirs = errors
    assert type(mine) is type(theirs)
    assert type(mine.orig) is type(theirs.orig)
    assert str(mine) == str(theirs)
    assert mine.connection_invalidated == theirs.connection_invalidated is False
    assert tx.execute(sa.select(1)).scalar_one() == 1


async def test_errors_are_those_of_sqlalchemy(database: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.run_each(TWICE, [blob("a")])
        _raise(tx, TWICE, sa.insert(blobs), **blob("a"))
        _raise(tx, BROKEN, sa.select(sa.column("x")).select_from(sa.table("no_such_table")))

    await database.write(work, actor="")


async def test_errors_are_translated(database: Database) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await database.read(lambda tx: tx.fetch_all(BROKEN))
    with pytest.raises(DatabaseUnavailableError):
        await database.write(lambda tx: tx.run_each(TWICE, [blob("a"), blob("a")]), actor="")


async def test_an_error_of_the_caller_is_not_translated(database: Database) -> None:
    """A number that no database takes is the fault of this program."""
    huge = Statement(sa.select(_b.digest).where(_b.size == sa.bindparam("size", type_=sa.Integer)))
    core = sa.select(_b.digest).where(_b.size == 1 << 80)
    errors = []
    for run in (lambda tx: tx.fetch_all(huge, size=1 << 80), lambda tx: tx.execute(core)):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - compared below
            await database.read(run)
        errors.append(type(caught.value))
    assert errors[0] is errors[1]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_lost_connection_is_found_and_replaced(database: Database) -> None:
    """The error invalidates the connection, and the read runs again on another one."""
    attempts: list[int] = []
    end = Statement(sa.select(sa.func.pg_terminate_backend(sa.func.pg_backend_pid())))

    def work(tx: Transaction) -> int:
        attempts.append(1)
        if len(attempts) == 1:
            tx.fetch_all(end)
        found: int = tx.fetch_value(Statement(sa.select(sa.literal(7))))
        return found

    assert await database.read(work) == 7
    assert len(attempts) == 2


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_conflict_is_retried(database: Database) -> None:
    attempts: list[int] = []
    conflict = Statement(sa.select(sa.func.pg_advisory_unlock_all()))
    raised = sa.text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

    def work(tx: Transaction) -> int:
        attempts.append(1)
        tx.run(conflict)
        if len(attempts) < 3:
            tx.run(Statement(raised))
        return len(attempts)

    assert await database.write(work, actor="") == 3


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_statement_has_the_timeout_of_the_transaction(database: Database) -> None:
    nap = Statement(sa.select(sa.func.pg_sleep(sa.bindparam("seconds", type_=sa.Float))))

    def work(tx: Transaction) -> None:
        tx.execute(sa.text("SET LOCAL statement_timeout = '50ms'"))
        tx.fetch_all(nap, seconds=30.0)

    with pytest.raises(DatabaseUnavailableError):
        await database.write(work, actor="")


def _listen(database: Database, note: Callable[[str, Any], None]) -> Callable[..., None]:
    def listener(
        _connection: object, _cursor: object, text: str, values: Any, *_others: object
    ) -> None:
        note(text, values)

    sa.event.listen(database._reader, "before_cursor_execute", listener)
    return listener
