"""Tests of two stores open at once: each blob's row names the store that holds its bytes."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.app import open_runtime
from registry.config import load
from registry.errors import ConfigError
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from storage.digest import Digest
from storage.driver import Driver
from storage.errors import StoreUnavailableError
from storage.memory import MemoryDriver
from storage.stores import Stores
from tests.api.conftest import Api
from tests.services.migration.conftest import MIB, Start, Way
from tests.support.kit import count_sessions, find_job, list_stored, require_session
from tests.support.pushing import blob_bytes

pytestmark = pytest.mark.anyio

NAME = "team/app"
OLD = blob_bytes("old", 6 * MIB)
NEW = blob_bytes("new", 6 * MIB)


def old_driver(api: Api) -> Driver:
    assert api.opened.stores.old is not None
    return api.opened.stores.old.driver


async def pull(api: Api, digest: Digest) -> bytes:
    answer = await api.http.get(f"/v2/{NAME}/blobs/{digest}")
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_blobs_are_read_where_they_are_and_written_where_they_shall_be(
    way: Way, start: Start
) -> None:
    async with start(way.before) as api:
        old = await api.push_blob(NAME, OLD)
    async with start(way.both) as api:
        new = await api.push_blob(NAME, NEW)
        assert await pull(api, old) == OLD
        assert await pull(api, new) == NEW
        assert len(list_stored(old_driver(api))) == 1
        assert len(list_stored(api.opened.driver)) == 1
        # A push of a blob that the old store holds stores nothing new.
        await api.push_blob(NAME, OLD)
        await find_job(api.opened, "pending-deletions").run()
        assert len(list_stored(old_driver(api))) == 1
        assert len(list_stored(api.opened.driver)) == 1
        assert await api.opened.registry.blobs.list_stores() == ["one", "two"]
        assert await api.opened.registry.health.list_problems() == {}


async def test_a_session_stays_in_the_store_that_it_began_in(way: Way, start: Start) -> None:
    digest = Digest.of(OLD + NEW)
    async with start(way.before) as api:
        location, idle = [await api.start_upload(NAME) for _ in range(2)]
        for each in (location, idle):
            answer = await api.http.patch(each, content=OLD)
            require_session(answer, 202, NAME, len(OLD))
    async with start(way.both) as api:
        answer = await api.http.put(location, params={"digest": str(digest)}, content=NEW)
        assert answer.status_code == 201, answer.text
        assert await pull(api, digest) == OLD + NEW
        assert list_stored(api.opened.driver) == []
        assert await count_sessions(api.opened.database) == 1
        assert await find_job(api.opened, "upload-expiry", upload_expiry=0).run() == 1
        await find_job(api.opened, "pending-deletions").run()
        assert len(list_stored(old_driver(api))) == 1
        assert await old_driver(api).list_staged() == []


async def test_doomed_keys_of_both_are_removed(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.jobs.schedule.SWEEP_EVERY", 3600.0)  # run by hand here
    async with start(way.before) as api:
        await api.push_blob(NAME, OLD)
    async with start(way.both) as api:
        await api.push_blob(NAME, NEW)

        job = find_job(api.opened, "pending-deletions")
        for driver in (old_driver(api), api.opened.driver):
            assert not await job.is_due()
            (key,) = list_stored(driver)

            def doom(tx: Transaction, store: str = driver.name, key: str = key) -> None:
                pending_deletions.insert(tx, store, key, "test")

            await api.opened.database.write(doom, actor="test")
            assert await job.is_due()
            await job.run()
            assert list_stored(driver) == []


async def test_it_does_not_start_without_a_store_that_holds_blobs(
    tmp_path: Path, way: Way, start: Start, database_url: str
) -> None:
    async with start(way.before) as api:
        await api.push_blob(NAME, OLD)
        location = await api.start_upload(NAME)
    overrides = {"database.url": database_url, **way.after}
    settings = load(config=None, data=tmp_path, overrides=overrides, environ={})
    with pytest.raises(ConfigError, match=r'the store "one".*\[old_storage\]'):
        async with open_runtime(settings):
            pass
    # The failed start created nothing.
    assert not (tmp_path / "store-two").exists()
    async with start(way.both) as api:
        answer = await api.http.delete(f"/v2/{NAME}/blobs/{Digest.of(OLD)}")
        assert answer.status_code == 202
        await api.opened.database.write(
            lambda tx: tx.execute(sa.delete(tables.blobs)), actor="test"
        )
    # A session in a missing store does not prevent the start. It waits for its store.
    async with start(way.after) as api:
        answer = await api.http.patch(location, content=OLD)
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert await find_job(api.opened, "upload-expiry", upload_expiry=0).run() == 0
        assert await count_sessions(api.opened.database) == 1


async def test_an_old_store_is_never_made(tmp_path: Path, database_url: str) -> None:
    overrides = {
        "database.url": database_url,
        "storage.name": "new",
        "storage.root": "new",
        "old_storage.driver": "local",
        "old_storage.root": "mistyped",
    }
    settings = load(config=None, data=tmp_path, overrides=overrides, environ={})
    with pytest.raises(StoreUnavailableError, match="is its disk mounted"):
        async with open_runtime(settings):
            pass
    assert not (tmp_path / "mistyped").exists()


def test_two_stores_have_two_names() -> None:
    with pytest.raises(ValueError, match="two stores have the same name: memory"):
        Stores(MemoryDriver(), MemoryDriver())
    stores = Stores(MemoryDriver(), MemoryDriver(name="old"))
    assert stores.get("old") is stores.old
    with pytest.raises(StoreUnavailableError, match="the store other is not open"):
        stores.get("other")


async def test_readiness_tells_of_both(start: Start, tmp_path: Path) -> None:
    way = Way(
        {"driver": "local", "name": "one", "root": str(tmp_path / "one")},
        {"driver": "local", "name": "two", "root": str(tmp_path / "two")},
    )
    async with start(way.before):
        pass
    async with start(way.both) as api:
        for gone, part in (("one", "old_storage"), ("two", "storage")):
            (tmp_path / gone).rename(tmp_path / "elsewhere")
            assert list(await api.opened.registry.health.list_problems()) == [part]
            (tmp_path / "elsewhere").rename(tmp_path / gone)
