"""`moorage storage copy`: all blobs from one store to another, whatever happens meanwhile."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from registry.app import Runtime, compose
from registry.config import load
from registry.errors import ConfigError
from registry.metadata.content import blobs
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.services.content.blob_writer import BlobWriter
from registry.services.maintenance.store_migration import Moved, Remaining
from storage.digest import Digest
from storage.driver import Driver
from storage.errors import StoreUnavailableError
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from storage.staging import StagedUpload
from tests.api.conftest import Api
from tests.scenarios.model.world import Died, Life, MortalDatabase, MortalDriver
from tests.services.migration.conftest import MIB, Start, Way
from tests.support.clock import MovableClock
from tests.support.kit import count_sessions, list_stored
from tests.support.pushing import blob_bytes
from tests.support.servers.seaweed import Bucket

pytestmark = pytest.mark.anyio

one_way = pytest.mark.parametrize("way", ["local-local"], indirect=True)
two_ways = pytest.mark.parametrize("way", ["local-local", "local-s3"], indirect=True)
"""For tests that do not depend on the source of the bytes."""

NAME = "team/app"
BIG = blob_bytes("big", 11 * MIB)  # three parts
SMALL = [blob_bytes(f"small {n}", 5000 + n) for n in range(6)]
ALL = [BIG, *SMALL, b""]


async def push(api: Api) -> list[Digest]:
    return [await api.push_blob(NAME, data) for data in ALL]


async def move(opened: Runtime, keep: float = 0) -> Moved:
    moved = Moved()
    await opened.registry.store_migration.run(moved, parallel=3, keep=keep, rate=0)
    return moved


def stores_of(opened: Runtime) -> tuple[Driver, Driver]:
    assert opened.stores.old is not None
    return opened.stores.old.driver, opened.driver


def list_open_uploads(driver: Driver) -> list[str]:
    """Return the multipart uploads that are still open."""
    if not isinstance(driver, S3Driver):
        return []
    bucket = driver._bucket
    return Bucket(
        str(bucket._client.reads.client().meta.endpoint_url),
        bucket._client._bucket,
        bucket._prefix.strip("/"),
    ).list_uploads()


async def require_all(api: Api) -> None:
    for data in ALL:
        answer = await api.http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")
        assert (answer.status_code, answer.content == data) == (200, True), answer.text


async def require_clean(opened: Runtime, blobs: int) -> None:
    """Require that each object belongs to a blob and nothing is staged, after all jobs have run.

    The application runs the jobs too and may hold a piece of work for a moment, so this polls.
    """
    old, new = stores_of(opened)
    wanted: tuple[object, ...] = ([], blobs, [], [], 0)
    found: tuple[object, ...] = ()
    for _ in range(100):
        await opened.registry.uploads.expire(1 << 62)
        await opened.registry.uploads.recover()
        await opened.registry.deletions.sweep()
        found = (
            list_stored(old),
            len(list_stored(new)),
            await old.list_staged() + await new.list_staged(),
            list_open_uploads(old) + list_open_uploads(new),
            await count_sessions(opened.database),
        )
        if found == wanted:
            return
        await asyncio.sleep(0.1)
    assert found == wanted


async def test_all_blobs_move_and_are_served_from_where_they_are(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    async with start(way.before) as api:
        await push(api)
    async with start(way.both) as api:
        moving = api.opened.registry.store_migration
        assert await moving.measure() == Remaining(len(ALL), sum(map(len, ALL)), 0, 0)
        moved = await move(api.opened)
        assert (moved.blobs, moved.bytes, moved.failures) == (len(ALL), sum(map(len, ALL)), [])
        assert moved.read == moved.bytes
        assert await moving.measure() == Remaining(0, 0, 0, len(ALL))
        await require_all(api)
        await require_clean(api.opened, len(ALL))
        movable_clock.forward(
            stores_of(api.opened)[0].late_write_window
        )  # deletes keys of a bucket again
        await require_clean(api.opened, len(ALL))
        assert await moving.measure() == Remaining(0, 0, 0, 0)
        assert (await move(api.opened)).blobs == 0
    async with start(way.after) as api:
        await require_all(api)


@one_way
async def test_without_an_old_store_there_is_nothing_to_move(way: Way, start: Start) -> None:
    async with start(way.before) as api:
        with pytest.raises(ConfigError, match=r"\[old_storage\]"):
            await move(api.opened)


async def test_bytes_stay_for_those_who_read_them(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    async with start(way.before) as api:
        await push(api)
    async with start(way.both) as api:
        served, deletions = api.opened.registry.blobs, api.opened.registry.deletions
        row = await api.opened.database.read(_finder(Digest.of(BIG)))
        reader = await served.open(row)
        reading = reader.read(0, len(BIG))
        read = [await anext(reading)]
        await move(api.opened, keep=3600)
        await deletions.sweep()  # deletes what the bucket had staged
        read += [piece async for piece in reading]
        await reader.close()
        assert b"".join(read) == BIG
        movable_clock.forward(3601)
        await deletions.sweep()
        assert list_stored(stores_of(api.opened)[0]) == []
        # A reader with a row from before the move still finds the blob.
        late = await served.open(row)
        assert b"".join([piece async for piece in late.read(0, len(BIG))]) == BIG
        await late.close()
        await require_all(api)


def _finder(digest: Digest) -> Callable[[Transaction], BlobRow]:
    def find(tx: Transaction) -> BlobRow:
        row = blobs.find_anywhere(tx, digest)
        assert row is not None
        return row

    return find


async def damage(driver: Driver, data: bytes, change: str) -> None:
    """Corrupt a blob behind the registry's back, as a disk or a bucket may."""
    (key,) = [key for key in list_stored(driver) if Digest.of(data).hex in key]
    spoiled = bytes(len(data)) if change == "flipped" else data[:-1]
    if isinstance(driver, LocalDriver):
        driver.path(key).unlink()
        if change != "gone":
            driver.path(key).write_bytes(spoiled)
    else:
        await driver.delete(key)
        if change != "gone":
            assert isinstance(driver, S3Driver)
            await driver._bucket.put(key, spoiled)


CHANGES = {
    "flipped": "do not match its digest",
    "short": "the wrong size",
    "gone": "missing",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_damaged_blobs_stay_and_the_rest_goes_on(way: Way, start: Start, change: str) -> None:
    async with start(way.before) as api:
        await push(api)
        await damage(api.opened.driver, SMALL[2], change)
    async with start(way.both) as api:
        moved = await move(api.opened)
        assert moved.blobs == len(ALL) - 1
        (trouble,) = moved.failures
        assert trouble.digest == Digest.of(SMALL[2])
        assert CHANGES[change] in trouble.reason
        rest = await api.opened.registry.store_migration.measure()
        assert (rest.blobs, rest.bytes) == (1, len(SMALL[2]))
        answer = await api.http.get(f"/v2/{NAME}/blobs/{trouble.digest}")
        assert answer.status_code == 404
        await api.push_blob(NAME, SMALL[2])  # heals it, in the new store
        await require_all(api)
        assert (await move(api.opened)).failures == []
        await require_clean(api.opened, len(ALL))


@one_way
async def test_without_verification_damage_would_move(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the digest is compared for this reason."""
    digest = Digest.of(SMALL[2])

    async def believe(_staged: StagedUpload, _algorithm: str, _prefix: Digest | None) -> Digest:
        return digest

    async with start(way.before) as api:
        await api.push_blob(NAME, SMALL[2])
        await damage(api.opened.driver, SMALL[2], "flipped")
    async with start(way.both) as api:
        with monkeypatch.context() as credulous:
            credulous.setattr(StagedUpload, "digest", believe)
            assert (await move(api.opened)).failures == []
        answer = await api.http.get(f"/v2/{NAME}/blobs/{digest}")
        assert Digest.of(answer.content) != digest


@two_ways
async def test_a_push_or_a_second_copy_at_the_same_moment_loses_nothing(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy moves and pushes each blob just before this copy updates its row."""
    repoint = BlobWriter._repoint_blob
    async with start(way.before) as api:
        await push(api)
    async with start(way.both) as api, start(way.both) as other:
        seen: list[object] = []
        turn = asyncio.Lock()

        async def late(writer: BlobWriter, *rest: object) -> bool:
            if writer is api.opened.registry.blob_writer:
                async with turn:
                    if not seen:
                        assert (await move(other.opened)).blobs == len(ALL)
                        for data in ALL:
                            await other.push_blob(NAME, data)
                    seen.append(rest)
            return await repoint(writer, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(BlobWriter, "_repoint_blob", late)
        moved = await move(api.opened)
        assert seen
        assert moved.blobs == 0
        assert moved.failures == []
        await require_all(api)
        await require_clean(api.opened, len(ALL))


@one_way
async def test_a_store_that_fails_for_a_while_is_waited_for(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.services.maintenance.store_migration.PAUSES", (0.01, 0.01))
    async with start(way.before) as api:
        await push(api)
    async with start(way.both) as api:
        old, new = stores_of(api.opened)
        for driver, method in ((old, "open"), (new, "claim")):
            left = 2

            async def fail(*arguments: object, real=getattr(driver, method)) -> object:  # type: ignore[no-untyped-def]  # noqa: B008
                nonlocal left
                left -= 1
                if left >= 0:
                    raise StoreUnavailableError("away")
                return await real(*arguments)

            with monkeypatch.context() as away:
                away.setattr(driver, method, fail)
                moved = await move(api.opened)
            assert moved.failures == []
        monkeypatch.setattr("registry.services.maintenance.store_migration.PAUSES", ())
        await require_all(api)
        await require_clean(api.opened, len(ALL))


@two_ways
async def test_a_store_that_stays_away_ends_the_copy(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    monkeypatch.setattr("registry.services.maintenance.store_migration.PAUSES", (0.01,))
    async with start(way.before) as api:
        await push(api)
    async with start(way.both) as api:
        _, new = stores_of(api.opened)

        async def fail(*_: object) -> None:
            raise StoreUnavailableError("away")

        with monkeypatch.context() as away:
            away.setattr(new, "claim", fail)
            with pytest.raises(StoreUnavailableError):
                await move(api.opened)
        assert (await api.opened.registry.store_migration.measure()).blobs == len(ALL)
        movable_clock.forward(60)  # lets a claim that was being made when the others ended expire
        await move(api.opened)
        await require_clean(api.opened, len(ALL))


@contextlib.asynccontextmanager
async def mortal(way: Way, folder: Path, life: Life) -> AsyncIterator[Runtime]:
    """Yield a process that copies, and dies when its fuse has burned down."""
    overrides = {"database.url": f"sqlite:///{folder}/moorage.db", **way.both}
    settings = load(config=None, data=folder, overrides=overrides, environ={})
    with mock.patch("registry.app.core.Database", partial(MortalDatabase, life=life)):
        opened = compose(settings)
    real = opened.driver
    opened.stores.current.staging._driver = MortalDriver(real, life)
    await opened.stores.start(create=True)
    try:
        yield opened
    finally:
        await opened.stores.close()
        await Database.close(opened.database)


@two_ways
async def test_killed_before_or_after_any_step_nothing_is_lost(
    way: Way, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill the copy at each step in turn, until a run completes. A whole copy follows each."""
    movable_clock = MovableClock(monkeypatch)
    monkeypatch.setattr("registry.services.maintenance.store_migration.PAUSES", ())
    payload = BIG[: 5 * MIB + 7]  # one part and a little more
    async with start(way.before) as api:
        digest = await api.push_blob(NAME, payload)
    steps = 0
    for fuse in range(200):
        life = Life(fuse)
        async with mortal(way, tmp_path, life) as opened:
            with contextlib.suppress(Died):
                await move(opened)
        if not life.dead:
            break
        steps += 1
    else:
        raise AssertionError("no copy got to its end")
    assert steps >= 6
    movable_clock.forward(2 * 86_400)
    async with start(way.both) as api:
        answer = await api.http.get(f"/v2/{NAME}/blobs/{digest}")
        assert answer.content == payload
        await move(api.opened)
        await require_clean(api.opened, 1)


@one_way
async def test_what_a_dead_copy_left_is_seen_without_the_expiry(
    way: Way, start: Start, tmp_path: Path
) -> None:
    """The control: an interrupted copy does leave something for the expiry job to delete."""
    async with start(way.before) as api:
        await api.push_blob(NAME, BIG)
    life = Life(4)
    async with mortal(way, tmp_path, life) as opened:
        with contextlib.suppress(Died):
            await move(opened)
    async with start(way.both) as api:
        await asyncio.sleep(0)
        assert await count_sessions(api.opened.database) == 1
