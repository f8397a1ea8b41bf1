"""Creating a backup: its content, what is copied, and what makes it fail."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.errors import BackupError, DatabaseUnavailableError
from registry.metadata import tables
from registry.metadata.engine import leases
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.backup import creating
from registry.services.backup.creating import Creator
from registry.services.backup.progress import Progress
from registry.services.backup.target import BackupRepository, open_target
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import StoreUnavailableError
from tests.api.conftest import Api
from tests.services.backup.conftest import Make
from tests.support.audit_log import read_audit
from tests.support.pushing import blob_bytes

pytestmark = pytest.mark.anyio

NAME = "team/app"
BLOBS = [blob_bytes(f"blob {n}", 2000 + n) for n in range(6)]

both = pytest.mark.parametrize("kind", ["sqlite-local", "postgres-local"])


async def push(api: Api, blobs: list[bytes] = BLOBS) -> None:
    for data in blobs:
        await api.push_blob(NAME, data)


async def create(api: Api, folder: Path) -> Progress:
    """Back up the registry in this process, so that a test can intercept each step."""
    progress = Progress()
    async with open_target(folder, exclusive=True, create=True) as target:
        known = api.opened.registry.blobs
        work = Creator(api.opened.database, known, target, progress, "test")
        await work.run(keys=None, parallel=1)
    return progress


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").iterdir())


async def test_only_what_is_new_is_copied(make: Make, target: Path) -> None:
    place = make("a")
    async with place.opened() as api:
        await push(api, BLOBS[:4])
        first = await place.ask("create", target)
        assert first["copied"]["blobs"] == 4
        await push(api, BLOBS)
        second = await place.ask("create", target)
        assert second["copied"] == {"blobs": 2, "bytes": sum(map(len, BLOBS[4:]))}
        assert second["snapshot"]["blobs"] == 6
        third = await place.ask("create", target)
        assert third["copied"] == {"blobs": 0, "bytes": 0}
    there = (await place.ask("list", target))["snapshots"]
    assert [each["id"] for each in there] == [
        each["snapshot"]["id"] for each in (first, second, third)
    ]
    files = {path.name for path in target.glob("blobs/*/*/*")}
    assert files == {Digest.of(data).hex for data in BLOBS}


async def collect(api: Api) -> None:
    """Delete all blob rows and then the bytes, as garbage collection does."""

    def work(tx: Transaction) -> None:
        for store, key in tx.execute(sa.select(tables.blobs.c.store, tables.blobs.c.key)).all():
            pending_deletions.insert(tx, store, key, "test")
        for table in (tables.repository_blobs, tables.blobs):
            tx.execute(sa.delete(table))

    await api.opened.database.write(work, actor="test")
    await api.opened.registry.deletions.sweep()


@both
@pytest.mark.parametrize("held", [True, False])
async def test_what_is_deleted_meanwhile_can_be_read_to_the_end(
    make: Make, target: Path, kind: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs that are deleted during a backup stay readable, and without the lease they do not."""
    if not held:
        monkeypatch.setattr(leases, "is_backed_up", lambda _: sa.false())
    put, collected = BackupRepository.put, False
    async with make("a", kind).opened() as api:

        async def collect_first(
            self: BackupRepository, digest: Digest, body: AsyncIterable[bytes]
        ) -> None:
            nonlocal collected
            await put(self, digest, body)
            if not collected:
                collected = True
                await collect(api)

        await push(api)
        monkeypatch.setattr(BackupRepository, "put", collect_first)
        progress = await create(api, target)
        assert collected
        assert progress.copied == (len(BLOBS) if held else 1)
        assert len(progress.missing) == (0 if held else len(BLOBS) - 1)
        # The lease ended with the backup.
        assert await api.opened.registry.deletions.sweep() == (len(BLOBS) if held else 0)


@both
async def test_one_whose_lease_ends_is_no_backup(
    make: Make, target: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its lease, a backup cannot know whether its blobs still exist."""
    put = BackupRepository.put
    async with make("a", kind).opened() as api:
        await push(api)
        write = api.opened.database.write

        async def put_slowly(
            self: BackupRepository, digest: Digest, body: AsyncIterable[bytes]
        ) -> None:
            await put(self, digest, body)
            await asyncio.sleep(0.1)

        async def fail(*_: object, **__: object) -> None:
            raise DatabaseUnavailableError("not now")

        def expire(tx: Transaction) -> None:
            tx.execute(sa.update(tables.leases).values(expires_at=1))

        async def lose(self: BackupRepository, digest: Digest, body: AsyncIterable[bytes]) -> None:
            await put_slowly(self, digest, body)
            await write(expire, actor="test")

        monkeypatch.setattr(creating, "HEARTBEAT_S", 0.05)
        monkeypatch.setattr(BackupRepository, "put", lose)
        with pytest.raises(BackupError, match="run the command again"):
            await create(api, target)
        assert [name.rpartition(".")[2] for name in list_names(target)] == ["partial"]
        monkeypatch.setattr(BackupRepository, "put", put_slowly)
        await create(api, target)  # The backup renews its lease in between.
    (name,) = list_names(target)
    assert not name.endswith(".partial")


async def test_a_store_that_fails_is_told_and_the_next_run_goes_on(
    make: Make, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make("a")
    reads = 0

    def fail_at_third(real: object) -> object:
        async def read(self: Reader, start: int, length: int) -> AsyncIterator[bytes]:
            nonlocal reads
            reads += 1
            if reads == 3:
                raise StoreUnavailableError("the storage disk failed")
            async for piece in real(self, start, length):  # type: ignore[operator]
                yield piece

        return read

    async with place.opened() as api:
        await push(api)
        with monkeypatch.context() as failing:
            from storage.local.reader import SmallReader  # noqa: PLC0415

            failing.setattr(SmallReader, "read", fail_at_third(SmallReader.read))
            told = await place.run("create", target, "--parallel", "1", expect=1)
        third = sorted(map(Digest.of, BLOBS))[2]
        assert f"blob {third} cannot be read from the registry's store" in told
        assert await place.ask("list", target) == {"snapshots": []}
        assert "no complete snapshot" in await place.run("verify", target, expect=1)
        again = await place.ask("create", target)
        assert again["copied"]["blobs"] == len(BLOBS) - 2
    assert (await place.ask("verify", target))["problems"] == []


async def test_what_the_registry_has_no_good_bytes_of_is_named(make: Make, target: Path) -> None:
    place, other = make("a"), make("b")
    async with place.opened() as api:
        await push(api)
        damaged, gone = Digest.of(BLOBS[0]), Digest.of(BLOBS[1])
        for digest, spoil in ((damaged, True), (gone, False)):
            (path,) = place.data.glob(f"storage/blobs/*/*/{digest.hex}.*")
            path.chmod(0o600)
            if spoil:
                path.write_bytes(bytes(path.stat().st_size))
            else:
                path.unlink()
        made = await place.ask("create", target, expect=1)
        assert made["missing"] == sorted(map(str, (damaged, gone)))
        assert (made["snapshot"]["blobs"], made["snapshot"]["missing"]) == (4, 2)
        told = await place.run("create", target, expect=1)
        assert f"{gone} is not in the snapshot" in told
    assert (await place.ask("verify", target))["problems"] == []
    assert (await other.ask("restore", target))["missing"] == []
    async with other.opened() as api:
        for data in BLOBS[:2]:
            assert (await api.http.head(f"/v2/{NAME}/blobs/{Digest.of(data)}")).status_code == 404
        await push(api)
        await api.opened.registry.deletions.sweep()
        for data in BLOBS:
            assert (await api.http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")).content == data


@both
async def test_rows_are_of_one_moment_and_nobody_waits_for_them(
    make: Make, target: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot is consistent and blocks no push.

    A push between the reading of two tables is not in the backup.
    """
    from registry.metadata.maintenance import database_copy  # noqa: PLC0415

    place, other = make("a", kind), make("b")
    iterate = database_copy.iter_rows
    async with place.opened() as api:
        await api.push_image(NAME, "v1", "one")
        loop = asyncio.get_running_loop()
        pushed = 0

        def push_before(connection: sa.Connection, table: sa.Table) -> object:
            nonlocal pushed
            if connection.dialect.name == api.opened.database.url.get_backend_name() and (
                table.name in {"blobs", "tags"} and pushed < 2
            ):
                pushed += 1
                pushing = api.push_image(NAME, f"late-{pushed}", f"late {pushed}")
                asyncio.run_coroutine_threadsafe(pushing, loop).result(60)
            return iterate(connection, table)

        monkeypatch.setattr(database_copy, "iter_rows", push_before)
        await create(api, target)
        monkeypatch.undo()
        assert pushed == 2
    monkeypatch.setattr("registry.logs.configure", lambda *_, **__: None)
    await other.run("restore", target)
    async with other.opened() as api:
        answer = await api.http.get(f"/v2/{NAME}/tags/list")
        assert answer.json()["tags"] == ["v1"]


async def test_a_folder_of_something_else_is_left_alone(make: Make, target: Path) -> None:
    place = make("a")
    async with place.opened() as api:
        await push(api, BLOBS[:1])
        target.mkdir()
        (target / "letter").write_text("precious")
        for folder in (target, place.data, place.data / "storage"):
            assert "contains no backups" in await place.run("create", folder, expect=1)
        for verb, options in (("list", ()), ("verify", ()), ("prune", ("--keep-last", "1"))):
            told = await place.run(verb, target, *options, expect=1)
            assert "no backups in" in told
        assert [path.name for path in target.iterdir()] == ["letter"]
        (target / "letter").unlink()
        async with open_target(target, exclusive=True, create=True):
            for verb in ("create", "list"):
                assert "another command" in await place.run(verb, target, expect=1)
        await place.run("create", target)


async def test_the_lease_of_one_that_was_killed_goes_with_the_next(
    make: Make, target: Path
) -> None:
    place = make("a")
    async with place.opened() as api:

        def begin(tx: Transaction) -> None:
            for name, seconds in (("killed", -1.0), ("other", 60.0)):
                leases.claim(tx, leases.BACKUP + name, name, seconds)
            leases.claim(tx, "scrub", "killed", -1.0)

        await api.opened.database.write(begin, actor="test")
        await place.run("create", target)
        query = sa.select(tables.leases.c.name).order_by(tables.leases.c.name)
        left = await api.opened.database.read(lambda tx: list(tx.execute(query).scalars()))
        assert left == ["backup/other", "scrub"]


async def test_the_books_tell_of_it(make: Make, target: Path) -> None:
    place = make("a")
    async with place.opened() as api:
        made = await place.ask("create", target)
        (event,) = await read_audit(api.opened.access.audit)
        assert (event.actor, event.kind) == ("operator", "backup.create")
        assert (event.target, json.loads(event.detail)) == (made["snapshot"]["id"], {"keys": False})


async def test_no_session_lease_or_pending_deletion_is_in_it(make: Make, target: Path) -> None:
    place, other = make("a"), make("b")
    async with place.opened() as api:
        await push(api)
        await api.start_upload(NAME)
        await collect(api)
        await place.run("create", target)
    await other.run("restore", target)
    database = Database(f"sqlite:///{other.data}/moorage.db")
    for table in (tables.uploads, tables.leases, tables.pending_deletions, tables.write_freeze):
        assert await database.read(lambda tx, t=table: tx.execute(sa.select(t)).all()) == []  # type: ignore[misc]
    await database.close()
