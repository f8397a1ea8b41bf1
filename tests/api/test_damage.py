"""Damaged bytes on disk, which are never served as the blob and are healed by a push."""

import errno
import os
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from registry import metrics
from registry.metadata.content import blobs
from storage.digest import Digest
from storage.local.driver import LocalDriver
from storage.local.reader import LocalReader
from tests.api.conftest import Api
from tests.support.kit import (
    Exchange,
    codes,
    image_manifest,
    list_open_files,
    list_stored,
    require_created,
    require_session,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("driver", ["local"])]

DATA = os.urandom(5000)
DIGEST = Digest.of(DATA)
LARGE = os.urandom(3 << 20)
NAME = "team/app"
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def look_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no response from memory hide the damage; `blobs/test_from_memory.py` has the limit."""
    monkeypatch.setattr("registry.api.v2.blobs.SEEN_S", 0.0)


def url(digest: Digest = DIGEST, name: str = NAME) -> str:
    return f"/v2/{name}/blobs/{digest}"


async def file_of(api: Api, digest: Digest = DIGEST) -> Path:
    row = await api.opened.database.read(lambda tx: blobs.find_anywhere(tx, digest))
    assert row is not None
    assert isinstance(api.opened.driver, LocalDriver)
    path = api.opened.driver.path(row.key)
    path.chmod(0o600)
    return path


def cut(path: Path) -> None:
    """Truncate the file after the first chunk that is read."""
    os.truncate(path, 1 << 20)


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, 4999),
    "emptied": lambda path: os.truncate(path, 0),
    "missing": Path.unlink,
    "longer": longer,
}
damages = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())


async def count_damaged(api: Api) -> int:
    text = (await api.http.get("/metrics")).text
    [value] = re.findall(r"^moorage_blobs_damaged (\S+)$", text, re.MULTILINE)
    return int(float(value))


async def require_unknown(api: Api, digest: Digest = DIGEST, name: str = NAME) -> None:
    for headers in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{digest}"'}):
        answer = await api.http.get(url(digest, name), headers=headers)
        assert answer.status_code == 404
        assert codes(answer) == ["BLOB_UNKNOWN"]
    exchange = await api.speak("HEAD", url(digest, name)).finish()
    assert (exchange.status, exchange.body) == (404, b"")


async def require_served(api: Api, data: bytes = DATA, name: str = NAME) -> None:
    digest = Digest.of(data)
    assert (await api.http.head(url(digest, name))).headers["Content-Length"] == str(len(data))
    assert (await api.http.get(url(digest, name))).content == data


async def push_in_chunks(api: Api, data: bytes = DATA) -> None:
    location = await api.start_upload(NAME)
    require_session(await api.http.patch(location, content=data), 202, NAME, len(data))
    digest = Digest.of(data)
    require_created(await api.http.put(location, params={"digest": str(digest)}), NAME, digest)


@SQLITE
@damages
@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_2_a_damaged_blob_is_404(
    api: Api, damage: Callable[[Path], None], method: str
) -> None:
    await api.push_blob(NAME, DATA)
    await api.push_blob("other", DATA)
    await require_served(api)
    assert await count_damaged(api) == 0
    found = metrics.BLOBS_FOUND_DAMAGED._value.get()
    damage(await file_of(api))
    assert (await api.http.request(method, url())).status_code == 404
    assert await count_damaged(api) == 1
    await require_unknown(api)
    await require_unknown(api, name="other")
    assert await count_damaged(api) == 1
    assert metrics.BLOBS_FOUND_DAMAGED._value.get() == found + 1  # counted once


@damages
async def test_2_6_an_ordinary_push_heals_it_everywhere(
    api: Api, damage: Callable[[Path], None]
) -> None:
    await api.push_blob(NAME, DATA)
    await api.push_blob("other", DATA)
    broken = await file_of(api)
    damage(broken)
    await require_unknown(api)  # Docker asks this before a push
    await push_in_chunks(api)
    await require_served(api)
    await require_served(api, name="other")
    assert await count_damaged(api) == 0
    await api.opened.registry.deletions.sweep()
    assert not broken.exists()
    assert len(list_stored(api.opened.driver)) == 1
    await require_served(api)


@damages
async def test_4b_a_push_heals_what_nobody_had_noticed(
    api: Api, damage: Callable[[Path], None]
) -> None:
    await api.push_blob(NAME, DATA)
    broken = await file_of(api)
    damage(broken)
    await api.push_blob("other", DATA)
    await api.opened.registry.deletions.sweep()
    assert not broken.exists()
    assert len(list_stored(api.opened.driver)) == 1
    await require_served(api)
    await require_served(api, name="other")
    assert await count_damaged(api) == 0


async def test_4b_a_push_of_a_whole_blob_does_not_replace_it(api: Api) -> None:
    """Control for the tests above: an undamaged blob keeps its key."""
    await api.push_blob(NAME, DATA)
    stored = list_stored(api.opened.driver)
    await push_in_chunks(api)
    await api.opened.registry.deletions.sweep()
    assert list_stored(api.opened.driver) == stored


async def test_7_a_manifest_that_names_it_is_refused_until_it_is_healed(api: Api) -> None:
    config = await api.push_blob(NAME, b"{}")
    await api.push_blob(NAME, DATA)
    raw = image_manifest(b"{}", [DATA])
    (await file_of(api)).unlink()
    (await file_of(api, config)).unlink()
    for digest in (DIGEST, config):
        await require_unknown(api, digest)
    assert await count_damaged(api) == 2
    answer = await api.put_manifest(NAME, "latest", raw)
    assert answer.status_code == 400
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"] * 2
    assert {error["detail"]["digest"] for error in answer.json()["errors"]} == {
        str(DIGEST),
        str(config),
    }
    await api.push_blob(NAME, b"{}")
    answer = await api.put_manifest(NAME, "latest", raw)
    assert codes(answer) == ["MANIFEST_BLOB_UNKNOWN"]
    await push_in_chunks(api)
    assert (await api.put_manifest(NAME, "latest", raw)).status_code == 201


async def test_3_a_manifest_outlives_its_blobs(api: Api) -> None:
    digest, raw = await api.push_image(NAME, "latest", "x")
    layer = Digest.of(b"layer one x")
    (await file_of(api, layer)).unlink()
    await require_unknown(api, layer)
    assert (await api.http.get(f"/v2/{NAME}/manifests/{digest}")).content == raw
    # A damaged blob is still in use.
    assert (await api.http.delete(url(layer))).status_code == 405
    await api.push_blob(NAME, b"layer one x")
    await require_served(api, b"layer one x")


@SQLITE
@damages
async def test_10_a_damaged_blob_can_be_deleted(api: Api, damage: Callable[[Path], None]) -> None:
    await api.push_blob(NAME, DATA)
    damage(await file_of(api))
    await require_unknown(api)
    assert (await api.http.delete(url())).status_code == 202
    assert (await api.http.delete(url())).status_code == 404


@SQLITE
@damages
async def test_11_a_damaged_blob_is_not_mounted(api: Api, damage: Callable[[Path], None]) -> None:
    await api.push_blob("other", DATA)
    damage(await file_of(api))
    for source in ({"from": "other"}, {}):
        answer = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"mount": str(DIGEST), **source}
        )
        require_session(answer, 202, NAME, 0)
        assert await count_damaged(api) == 1
    await push_in_chunks(api)
    await require_served(api)
    await require_served(api, name="other")


@damages
async def test_2_a_file_that_comes_back_heals_by_itself(
    api: Api, damage: Callable[[Path], None]
) -> None:
    await api.push_blob(NAME, DATA)
    path = await file_of(api)
    for method in ("HEAD", "GET"):
        damage(path)
        await require_unknown(api)
        assert await count_damaged(api) == 1
        path.write_bytes(DATA)
        assert (await api.http.request(method, url())).status_code == 200
        assert await count_damaged(api) == 0
        await require_served(api)
    raw = image_manifest(DATA, [DATA])
    assert (await api.put_manifest(NAME, "latest", raw)).status_code == 201


async def test_2_a_disk_that_is_not_mounted_is_no_damage(api: Api) -> None:
    await api.push_blob(NAME, DATA)
    root = api.settings.storage_root
    away = root.rename(root.with_name("away"))
    root.mkdir()
    for _ in range(2):
        answer = await api.http.get(url())
        assert answer.status_code == 503
        assert codes(answer) == ["UNAVAILABLE"]
        assert int(answer.headers["Retry-After"]) > 0
        exchange = await api.speak("HEAD", url()).finish()
        assert (exchange.status, exchange.body) == (503, b"")
        push = await api.http.post(
            f"/v2/{NAME}/blobs/uploads/", params={"digest": str(DIGEST)}, content=DATA
        )
        assert push.status_code == 503
        mount = await api.http.post(
            "/v2/other/blobs/uploads/", params={"mount": str(DIGEST), "from": NAME}
        )
        assert mount.status_code == 503
    root.rmdir()
    away.rename(root)
    assert await count_damaged(api) == 0
    await require_served(api)


# Damage that is found while the blob is sent


def after_one_piece(damage: Callable[[], object]) -> Callable[[Exchange], Awaitable[None]]:
    async def on_send(exchange: Exchange) -> None:
        if len(exchange.sent) == 2:
            damage()

    return on_send


def failing_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that makes the disk fail for open files, from the next read on."""
    read = LocalReader.read
    broken = False

    def fail() -> None:
        nonlocal broken
        broken = True

    class Failing:
        def __init__(self, reader: LocalReader) -> None:
            self._file = reader._reads
            self.seek = reader._reads.seek
            self.close = reader._reads.close

        async def read(self, size: int) -> bytes:
            if broken:
                raise OSError(errno.EIO, "Input/output error")
            piece: bytes = await self._file.read(size)
            return piece

    def reading(self: LocalReader, start: int, length: int) -> object:
        self._reads = Failing(self)
        return read(self, start, length)

    monkeypatch.setattr(LocalReader, "read", reading)
    return fail


@pytest.mark.parametrize("damage", ["the file ends early", "the disk fails"])
async def test_2_damage_on_the_way_cuts_the_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    digest = await api.push_blob(NAME, LARGE)
    path = await file_of(api, digest)
    with monkeypatch.context() as patch:
        happen = failing_reads(patch) if damage == "the disk fails" else partial(cut, path)
        on_send = after_one_piece(happen)
        exchange = await api.speak("GET", url(digest), on_send=on_send).ended()
    # The body is shorter than Content-Length and has no end, so no client accepts it as the blob.
    assert exchange.status == 200
    assert exchange.headers["Content-Length"] == str(len(LARGE))
    assert exchange.body == LARGE[: 1 << 20]
    assert not exchange.complete
    assert list_open_files(path) == []

    assert await count_damaged(api) == 1
    await require_unknown(api, digest)
    # After a read error, the blob stays damaged even if the file has the right length.
    path.write_bytes(LARGE)
    await require_unknown(api, digest)
    raw = image_manifest(LARGE, [])
    assert codes(await api.put_manifest(NAME, "latest", raw)) == ["MANIFEST_BLOB_UNKNOWN"]

    await push_in_chunks(api, LARGE)
    await require_served(api, LARGE)
    assert await count_damaged(api) == 0
    await api.opened.registry.deletions.sweep()
    assert not path.exists()
    assert len(list_stored(api.opened.driver)) == 1


@SQLITE
async def test_2_a_range_is_cut_as_well(api: Api) -> None:
    digest = await api.push_blob(NAME, LARGE)
    path = await file_of(api, digest)
    headers = {"Range": "bytes=10-2000000"}
    on_send = after_one_piece(partial(cut, path))
    exchange = await api.speak("GET", url(digest), headers, on_send).ended()
    assert exchange.status == 206
    assert exchange.body == LARGE[10 : 10 + (1 << 20)]
    assert not exchange.complete
    assert await count_damaged(api) == 1


async def test_2_damage_of_an_old_key_does_not_touch_the_healed_blob(api: Api) -> None:
    """A slow reader finds damage in the old file after a push has replaced it."""
    digest = await api.push_blob(NAME, LARGE)
    path = await file_of(api, digest)

    async def cut_and_heal(exchange: Exchange) -> None:
        if len(exchange.sent) == 2:
            cut(path)
            await push_in_chunks(api, LARGE)

    exchange = await api.speak("GET", url(digest), on_send=cut_and_heal).ended()
    assert not exchange.complete
    assert await count_damaged(api) == 0
    await require_served(api, LARGE)


@SQLITE
async def test_2_a_blob_removed_while_it_is_read_is_read_to_its_end(api: Api) -> None:
    digest = await api.push_blob(NAME, LARGE)
    on_send = after_one_piece((await file_of(api, digest)).unlink)
    exchange = await api.speak("GET", url(digest), on_send=on_send).ended()
    assert exchange.complete
    assert exchange.body == LARGE


async def test_a_range_of_what_is_gone_is_404_like_all_of_it(api: Api) -> None:
    """A range outside the blob, which the row alone would refuse with 416, is 404 too."""
    await api.push_blob(NAME, DATA)
    outside = {"Range": "bytes=9000-"}
    assert (await api.http.get(url(), headers=outside)).status_code == 416
    (await file_of(api)).unlink()
    answer = await api.http.get(url(), headers=outside)
    assert (answer.status_code, codes(answer)) == (404, ["BLOB_UNKNOWN"])
