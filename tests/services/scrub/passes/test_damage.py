"""A scrub finds damaged blobs, and nothing else."""

import hashlib
from typing import Any

import pytest

from registry import metrics
from registry.metadata.content.blobs import BlobRow
from registry.services.maintenance import scrub as module
from registry.services.throttle import Throttle
from storage.digest import Digest
from storage.driver import Driver, Reader
from storage.errors import StoreUnavailableError
from tests.api.conftest import Api
from tests.services.scrub.conftest import (
    DAMAGES,
    NAME,
    Start,
    damage,
    find_row,
    list_damaged,
    one_place,
    scrub,
    write,
)
from tests.services.scrub.passes.helpers import store, url
from tests.support.kit import codes, index_manifest, list_stored, require_session

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("place", "count", "each"),
    [("sqlite-local", 10_000, 25), ("postgres-s3", 60, 2)],
    indirect=["place"],
)
async def test_a_pass_finds_all_that_are_damaged_and_only_those(
    start: Start, count: int, each: int
) -> None:
    """Of 10,000 blobs 100 are corrupt: changed, shortened, lengthened or missing."""
    async with start() as api:
        made = await store(api.opened, count)
        by_chance = sorted(made, key=lambda digest: hashlib.md5(digest.hex.encode()).digest())  # noqa: S324
        spoiled = by_chance[: each * len(DAMAGES)]
        for n, digest in enumerate(spoiled):
            await damage(api.opened.driver, *made[digest], list(DAMAGES)[n % len(DAMAGES)])
        read = metrics.BLOBS_SCRUBBED._value.get()
        await scrub(api.opened)
        assert sorted(await list_damaged(api.opened)) == sorted(map(str, spoiled))
        row = await api.opened.registry.scrub.find()
        assert row is not None
        assert (row.is_running, row.blobs, row.damaged) == (False, count, len(spoiled))
        assert metrics.BLOBS_SCRUBBED._value.get() == read + count


async def test_what_was_put_back_is_whole_again(api: Api) -> None:
    """After a restore from a backup by hand the next pass trusts the digest, not the old record."""
    made = await store(api.opened, 4)
    for (key, data), how in zip(made.values(), DAMAGES, strict=True):
        await damage(api.opened.driver, key, data, how)
    await scrub(api.opened)
    assert len(await list_damaged(api.opened)) == 4
    *back, (key, data) = made.values()
    for each in back:
        await write(api.opened.driver, *each)
    await write(api.opened.driver, key, bytes(len(data)))
    await scrub(api.opened)
    assert list(await list_damaged(api.opened)) == [str(Digest.of(data))]


@pytest.mark.parametrize("how", DAMAGES)
async def test_it_is_unknown_until_a_push_heals_it_everywhere(api: Api, how: str) -> None:
    data, layer = b"layer one x", Digest.of(b"layer one x")
    _, image = await api.push_image(NAME, "latest", "x")
    _, other_image = await api.push_image("other", "v1", "y")
    index = index_manifest([image])
    assert (await api.put_manifest(NAME, "index", index)).status_code == 201
    assert (
        await api.http.post("/v2/other/blobs/uploads/", params={"mount": str(layer), "from": NAME})
    ).status_code == 201
    row = await find_row(api.opened, layer)
    await damage(api.opened.driver, row.key, data, how)
    await scrub(api.opened)
    assert await list_damaged(api.opened) == {str(layer): [f"{NAME}:index", f"{NAME}:latest"]}

    for name in (NAME, "other"):
        answer = await api.http.get(url(layer, name))
        assert (answer.status_code, codes(answer)) == (404, ["BLOB_UNKNOWN"])
        assert (await api.http.head(url(layer, name))).status_code == 404
    mount = await api.http.post(
        "/v2/third/blobs/uploads/", params={"mount": str(layer), "from": NAME}
    )
    require_session(mount, 202, "third", 0)
    # A push of a manifest that names it is refused, and the client's next push of the blob heals
    # it.
    answer = await api.put_manifest(NAME, "again", image)
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    assert answer.json()["errors"][0]["detail"]["digest"] == str(layer)
    assert (await api.put_manifest("other", "again", other_image)).status_code == 201

    # Until then the corrupt bytes are kept, so that an operator can rescue them.
    await api.opened.registry.deletions.sweep()
    assert (row.key in list_stored(api.opened.driver)) == (how != "gone")
    await api.push_blob("other", data)
    for name in (NAME, "other"):
        assert (await api.http.get(url(layer, name))).content == data
    assert (await api.put_manifest(NAME, "again", image)).status_code == 201
    assert await list_damaged(api.opened) == {}
    await api.opened.registry.deletions.sweep()
    assert row.key not in list_stored(api.opened.driver)
    await scrub(api.opened)
    assert await list_damaged(api.opened) == {}


async def test_the_place_survives_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 3)
    opened_keys: list[str] = []

    def watch(driver: Driver) -> None:
        real = driver.open

        async def noted(key: str, *rest: Any) -> Reader:
            opened_keys.append(key)
            return await real(key, *rest)

        monkeypatch.setattr(driver, "open", noted)

    async with start() as api:
        made = await store(api.opened, 8)
        watch(api.opened.driver)
        await api.opened.registry.scrub.begin(restart=False)
        assert await api.opened.registry.scrub.run(0) == 3
        begun = await api.opened.registry.scrub.find()
    async with start() as api:
        watch(api.opened.driver)
        service = api.opened.registry.scrub
        await service.begin(restart=False)  # resumes the unfinished pass
        assert [await service.run(0) for _ in range(4)] == [3, 2, 0, 0]
        row = await service.find()
        assert begun is not None
        assert row is not None
        assert (row.started_at, row.is_running, row.blobs) == (begun.started_at, False, 8)
        assert sorted(opened_keys) == sorted(key for key, _ in made.values())


async def test_who_lost_the_lease_does_not_set_the_pass_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    async with start() as api, start() as other:
        await store(api.opened, 6)
        await api.opened.registry.scrub.begin(restart=False)
        real, turns = api.opened.registry.scrub._look, 0

        async def slow(row: BlobRow, pace: Throttle) -> object:
            nonlocal turns
            turns += 1
            if turns == 1:
                assert await other.opened.registry.scrub.run(0) == 2
                assert await other.opened.registry.scrub.run(0) == 2
            return await real(row, pace)

        monkeypatch.setattr(api.opened.registry.scrub, "_look", slow, raising=False)
        await api.opened.registry.scrub.run(0)
        row = await other.opened.registry.scrub.find()
        assert row is not None
        assert row.blobs == 4


async def test_a_store_that_is_away_is_no_damage(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as api:
        await store(api.opened, 5)
        service = api.opened.registry.scrub
        await service.begin(restart=False)

        async def away(*_: object) -> None:
            raise StoreUnavailableError("away")

        with monkeypatch.context() as gone:
            for method in ("open", "check"):
                gone.setattr(api.opened.driver, method, away)
            with pytest.raises(StoreUnavailableError):
                await service.run(0)
        row = await service.find()
        assert row is not None
        assert (row.is_running, row.blobs, row.last_blob) == (True, 0, None)
        assert await list_damaged(api.opened) == {}
        assert [await service.run(0), await service.run(0)] == [5, 0]
        assert await list_damaged(api.opened) == {}


@one_place
async def test_a_disk_that_is_not_mounted_is_no_damage(api: Api) -> None:
    await store(api.opened, 3)
    root = api.settings.storage_root
    away = root.rename(root.with_name("away"))
    root.mkdir()
    with pytest.raises(StoreUnavailableError):
        await scrub(api.opened)
    root.rmdir()
    away.rename(root)
    assert await list_damaged(api.opened) == {}


async def test_one_blob_that_cannot_be_read_does_not_stop_the_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as api:
        made = await store(api.opened, 5)
        (bad, _), (spoiled, data) = list(made.values())[:2]
        await damage(api.opened.driver, spoiled, data, "flipped")
        real = api.opened.driver.open

        async def refuse(key: str, *rest: Any) -> Reader:
            if key == bad:
                raise StoreUnavailableError("denied")
            return await real(key, *rest)

        with monkeypatch.context() as refusing:
            refusing.setattr(api.opened.driver, "open", refuse)
            await scrub(api.opened)
        row = await api.opened.registry.scrub.find()
        assert row is not None
        assert (row.blobs, row.damaged, row.unreadable) == (5, 1, 1)
        assert list(await list_damaged(api.opened)) == [str(Digest.of(data))]
