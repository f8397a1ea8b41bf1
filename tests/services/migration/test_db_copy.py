"""Tests of `moorage db copy`: all rows are copied while the source takes no changes."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.app import compose, create_app, export_private_keys
from registry.config import load
from registry.errors import (
    ConfigError,
    ConflictError,
    DatabaseFrozenError,
    DatabaseUnavailableError,
    SchemaError,
)
from registry.metadata import tables
from registry.metadata.access import audit
from registry.metadata.content import repositories
from registry.metadata.engine import migrate, write_freeze
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.engine.write_freeze import MoveState
from registry.metadata.maintenance import database_copy
from registry.oci.names import RepositoryName
from registry.services.maintenance.database_transfer import Transfer
from storage.digest import Digest
from tests.api.conftest import Api, in_process
from tests.metadata.engine.test_migrate import fill, read_all
from tests.support.accounts import AUTH, Accounts, bearer, get_token, signed
from tests.support.kit import codes
from tests.support.postgres import Cluster

pytestmark = pytest.mark.anyio

WAYS = ["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite", "postgres-postgres"]
NAME = "team/app"
_TYPE = "application/vnd.oci.image.manifest.v1+json"
_EVENT = dict.fromkeys(("actor", "address", "request_id", "kind", "target", "detail"), "x")


@pytest.fixture
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URLs of the source and the target. A SQLite target has no schema yet."""
    with contextlib.ExitStack() as stack:

        def place(kind: str, name: str) -> str:
            if kind == "sqlite":
                return f"sqlite:///{tmp_path}/{name}.db"
            cluster: Cluster = request.getfixturevalue("postgres")
            return stack.enter_context(cluster.database())

        kinds = getattr(request, "param", "sqlite-postgres").split("-")
        source, target = place(kinds[0], "from"), place(kinds[1], "to")
        migrate.upgrade(source)
        yield source, target


all_ways = pytest.mark.parametrize("urls", WAYS, indirect=True)
both_ways = pytest.mark.parametrize("urls", WAYS[:2], indirect=True)


@asynccontextmanager
async def opened(url: str) -> Any:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def no_keys() -> None:
    return None


async def transfer(source: str, target: str, *, keep: bool = False) -> dict[str, int]:
    async with opened(source) as database:
        return await Transfer(database).run(
            target, no_keys, keep=keep, tell=lambda _table, _rows: None
        )


async def write_one(url: str, name: str = "another") -> None:
    async with opened(url) as database:
        await database.write(lambda tx: repositories.ensure(tx, RepositoryName(name)), actor="ann")


def rows_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all copied rows, with the same values whichever database holds them."""
    found = {}
    engine = sa.create_engine(parse_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in database_copy.list_tables():
            rows = connection.execute(sa.select(table))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found


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
        assert (state.move.state, state.move.over) == (MoveState.MOVED, False)
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


# Copies while clients use the registry.


@asynccontextmanager
async def serving(url: str, data: Path) -> Any:
    overrides = {"database.url": url, "storage.root": str(data / "storage"), **AUTH}
    settings = load(config=None, data=data, overrides=overrides, environ={})
    registry = compose(settings)
    async with in_process(create_app(settings, registry)) as http:
        yield Api(http, registry, settings)


Serving = Callable[[str, Path], AbstractAsyncContextManager[Api]]


@both_ways
async def test_reads_go_on_and_changes_wait(
    urls: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = urls
    reached, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    fill_in = database_copy._set_counters

    def halt(*arguments: Any) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(60)
        fill_in(*arguments)

    monkeypatch.setattr(database_copy, "_set_counters", halt)
    async with serving(source, tmp_path) as api:
        accounts = Accounts.of(api.opened)
        robot = await accounts.robot("ci")
        user = await accounts.user("ann", admin=True)
        await accounts.grant("robot:ci", "team/**", "pull,push")
        mine = signed(api.http, robot.basic)
        digest, raw = await mine.push_image(NAME, "v1")

        async def work() -> dict[str, int]:
            return await Transfer(api.opened.database).run(
                target,
                lambda: export_private_keys(api.settings, api.opened, target),
                keep=False,
                tell=lambda *_: None,
            )

        copying_task = asyncio.create_task(work())
        await reached.wait()
        token = ""
        for _ in range(2):  # during the freeze, and after it
            token = await get_token(api.http, robot, f"repository:{NAME}:pull")
            answer = await api.http.get(f"/v2/{NAME}/manifests/v1", headers=bearer(token))
            assert (answer.status_code, answer.content) == (200, raw)
            answer = await mine.http.get(f"/v2/{NAME}/tags/list")
            assert answer.json()["tags"] == ["v1"]
            for method, path in (
                ("PUT", f"/v2/{NAME}/manifests/v2"),
                ("POST", f"/v2/{NAME}/blobs/uploads/"),
            ):
                answer = await mine.http.request(
                    method, path, content=raw, headers={"Content-Type": _TYPE}
                )
                assert (answer.status_code, codes(answer)) == (503, ["UNAVAILABLE"])
                assert "Retry-After" in answer.headers
            go_on.set()
            await copying_task
    async with serving(target, tmp_path) as api:
        for login in (robot, user):
            mine = signed(api.http, login.basic)
            answer = await mine.http.get(f"/v2/{NAME}/manifests/v1")
            assert (answer.status_code, answer.content) == (200, raw)
        # A token signed before the move is still valid.
        for each in (token, await get_token(api.http, robot, f"repository:{NAME}:pull")):
            answer = await api.http.get(f"/v2/{NAME}/manifests/{digest}", headers=bearer(each))
            assert answer.status_code == 200, answer.text
        await signed(api.http, robot.basic).push_image(NAME, "v2", "two")


@pytest.mark.parametrize("urls", ["sqlite-postgres"], indirect=True)
async def test_keys_need_a_secret_where_replicas_share_them(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    source, target = urls
    async with serving(source, tmp_path) as api:
        await Accounts.of(api.opened).user("ann")
        settings = load(config=None, data=tmp_path, overrides={"database.url": source}, environ={})
        with pytest.raises(ConfigError, match=r"\[auth\] secret"):
            await Transfer(api.opened.database).run(
                target,
                lambda: export_private_keys(settings, api.opened, target),
                keep=False,
                tell=lambda *_: None,
            )
        await Accounts.of(api.opened).user("bob")  # the source takes changes again


@pytest.mark.parametrize("urls", ["postgres-sqlite"], indirect=True)
async def test_keys_of_another_registry_are_not_taken_for_ours(
    urls: tuple[str, str], tmp_path: Path
) -> None:
    source, target = urls
    async with serving(source, tmp_path) as api:
        await Accounts.of(api.opened).robot("ci")
        (tmp_path / "keys").mkdir(mode=0o700)
        other = tmp_path / "keys" / "secrets"
        other.write_bytes(b"of another registry")
        other.chmod(0o600)
        with pytest.raises(ConfigError, match="another registry"):
            await export_private_keys(api.settings, api.opened, target)


@pytest.mark.parametrize("urls", ["postgres-sqlite"], indirect=True)
async def test_readers_are_not_kept_out_and_nothing_is_left_behind(
    urls: tuple[str, str],
) -> None:
    """The freeze does not wait for a reader that holds one long transaction over all tables."""
    source, target = urls
    engine = sa.create_engine(parse_url(source), poolclass=sa.NullPool)
    async with opened(source) as database:
        with engine.connect() as reading:
            for table in database_copy.list_tables():
                reading.execute(sa.select(table).limit(1))
            await database.write(lambda tx: write_freeze.freeze(tx, "t", "place", 0), actor="")
            assert len(await database.read(write_freeze.list_guarded)) > 20
        await Transfer(database).run(target, no_keys, keep=True, tell=lambda *_: None)
        assert await database.read(write_freeze.list_guarded) == []
        await database.write(
            lambda tx: repositories.ensure(tx, RepositoryName("another")), actor="ann"
        )
