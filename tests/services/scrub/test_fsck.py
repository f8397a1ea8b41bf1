"""Tests of fsck: rows and objects are compared in both directions, during pushes and deletions."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from registry.app import Runtime
from registry.errors import ConflictError
from registry.metadata.content import blobs, key_ownership
from registry.services.content.publication import Publication
from registry.services.maintenance import fsck as module
from registry.services.maintenance.fsck import FindingKind, RepairAction, Report
from storage.digest import Digest
from storage.driver import Reader, StoredObject
from storage.errors import StoreUnavailableError
from storage.keys import blob_key, new_generation, new_multipart_key, staged_key
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from storage.staging import StagingArea
from tests.api.conftest import Api
from tests.services.scrub.conftest import (
    NAME,
    Start,
    damage,
    describe,
    find_row,
    fsck,
    list_damaged,
    one_place,
    write,
)
from tests.support.clock import MovableClock
from tests.support.kit import list_bucket, list_stored
from tests.support.pushing import blob_bytes, push_in_chunks

pytestmark = pytest.mark.anyio

MIB = 1 << 20
BIG = blob_bytes("big", 6 * MIB)  # two parts


def orphan_key(opened: Runtime, data: bytes) -> str:
    """Return a key in the form that the store uses."""
    if isinstance(opened.driver, S3Driver):
        return new_multipart_key()
    return blob_key(Digest.of(data), new_generation())


async def get(api: Api, data: bytes) -> bytes | int:
    answer = await api.http.get(f"/v2/{NAME}/blobs/{Digest.of(data)}")
    return answer.content if answer.status_code == 200 else answer.status_code


async def test_all_is_well_while_uploads_are_on_their_way(api: Api) -> None:
    """Staged bytes and a bucket's parts are expected too."""
    await api.push_image(NAME, "latest")
    await push_in_chunks(api, NAME, BIG)
    begun, location = await api.start_upload(NAME), await api.start_upload(NAME)
    for upload, size in ((begun, 10), (location, len(BIG))):
        assert (await api.http.patch(upload, content=BIG[:size])).status_code == 202
    await api.push_blob(NAME, b"twice")
    await push_in_chunks(api, NAME, b"twice")  # the key of the second is pending deletion
    report = await fsck(api.opened, repair=True)
    assert describe(report) == []
    assert (report.rows, report.young, report.open) == (5, 0, 0)
    assert report.objects >= 6
    # The uploads can be continued.
    await api.http.put(location, params={"digest": str(Digest.of(BIG))})
    assert await get(api, BIG) == BIG


async def test_rows_without_objects_are_reported_and_quarantined(api: Api) -> None:
    kept, lost, short = b"kept", b"lost", b"short"
    for data in (kept, lost, short):
        await api.push_blob(NAME, data)
    keys = [(await find_row(api.opened, Digest.of(data))).key for data in (lost, short)]
    await damage(api.opened.driver, keys[0], lost, "gone")
    await damage(api.opened.driver, keys[1], short, "short")

    report = await fsck(api.opened)
    assert sorted(describe(report)) == sorted(
        (FindingKind.MISSING, k, RepairAction.NONE) for k in keys
    )
    assert {each.digest for each in report.findings} == {Digest.of(lost), Digest.of(short)}
    assert (report.rows, report.open, report.counts[FindingKind.MISSING]) == (3, 2, 2)
    assert await list_damaged(api.opened) == {}  # reported, not recorded

    for _ in range(2):  # a known problem is reported again
        report = await fsck(api.opened, repair=True)
        assert {action for _, _, action in describe(report)} == {RepairAction.QUARANTINED}
        assert report.open == 2
    assert len(await list_damaged(api.opened)) == 2
    assert [await get(api, data) for data in (kept, lost, short)] == [kept, 404, 404]
    for data in (lost, short):
        await api.push_blob(NAME, data)
        assert await get(api, data) == data
    assert describe(await fsck(api.opened, repair=True)) == []


async def test_objects_without_rows_are_removed_after_grace(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    data = b"mine"
    await api.push_blob(NAME, data)
    stray = orphan_key(api.opened, b"stray")
    # The same bytes as an existing blob, so no row needs this object.
    double = blob_key(Digest.of(data), new_generation())
    strays = {stray: b"stray", double: data}
    if isinstance(api.opened.driver, S3Driver):
        strays[staged_key("00000000-0000-4000-8000-000000000000", 3)] = b"staged"
    for key, content in strays.items():
        await write(api.opened.driver, key, content)

    report = await fsck(api.opened, repair=True, grace=3600)
    assert (describe(report), report.young, report.open) == ([], len(strays), 0)
    movable_clock.forward(3700)
    report = await fsck(api.opened, grace=3600)
    assert sorted(describe(report)) == sorted(
        (FindingKind.UNOWNED, k, RepairAction.NONE) for k in strays
    )
    assert (report.open, report.young) == (len(strays), 0)
    report = await fsck(api.opened, repair=True, grace=3600)
    assert sorted(describe(report)) == sorted(
        (FindingKind.UNOWNED, k, RepairAction.QUEUED_FOR_DELETION) for k in strays
    )
    assert report.open == 0
    assert await api.opened.registry.deletions.sweep() == len(strays)
    assert list_stored(api.opened.driver) == [(await find_row(api.opened, Digest.of(data))).key]
    assert await get(api, data) == data
    assert describe(await fsck(api.opened)) == []


@pytest.mark.parametrize("how", ["gone", "flipped"])
async def test_an_object_is_adopted_by_the_blob_that_needs_it(api: Api, how: str) -> None:
    """The object's digest decides, not its name. The name in a bucket does not show the digest."""
    data = b"rescued"
    digest = await api.push_blob(NAME, data)
    row = await find_row(api.opened, digest)
    await damage(api.opened.driver, row.key, data, how)
    if how == "flipped":
        await api.opened.registry.blobs.note_damage(row)
    wrong = blob_key(digest, new_generation())
    await write(api.opened.driver, wrong, b"xescued")
    right = orphan_key(api.opened, data)
    await write(api.opened.driver, right, data)

    report = await fsck(api.opened, repair=True)
    found = {key: (kind, action) for kind, key, action in describe(report)}
    assert found[right] == (FindingKind.UNOWNED, RepairAction.ADOPTED)
    assert found[wrong] == (FindingKind.UNOWNED, RepairAction.QUEUED_FOR_DELETION)
    assert found.get(row.key, (FindingKind.MISSING, RepairAction.ADOPTED)) == (
        FindingKind.MISSING,
        RepairAction.ADOPTED,
    )
    assert report.open == 0
    assert (await find_row(api.opened, digest)).key == right
    assert await list_damaged(api.opened) == {}
    assert await get(api, data) == data
    while await api.opened.registry.deletions.sweep():
        pass
    assert list_stored(api.opened.driver) == [right]
    assert await get(api, data) == data


async def test_what_is_not_ours_is_left_alone(api: Api) -> None:
    await api.push_blob(NAME, b"mine")
    key = f"blobs/sha256/ab/notes {secrets.token_hex(2)}.txt"
    await write(api.opened.driver, key, b"somebody's")
    for repair in (False, True):
        report = await fsck(api.opened, repair=repair)
        assert describe(report) == [(FindingKind.FOREIGN, key, RepairAction.NONE)]
        assert report.open == 1
    assert key in list_stored(api.opened.driver)


async def test_pages_of_objects_meet_pages_of_rows(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page boundaries may fall anywhere: rows after the last object, objects after the last row."""
    contents = [f"blob {n}".encode() for n in range(12)]
    for data in contents:
        await api.push_blob(NAME, data)
    rows = [await find_row(api.opened, Digest.of(data)) for data in contents]
    rows.sort(key=lambda row: row.key)
    lost = [rows[n] for n in (0, 4, 5, 6, 11)]
    for row in lost:
        await api.opened.driver.delete(row.key)
    strays = [orphan_key(api.opened, secrets.token_bytes(8)) for _ in range(5)]
    for key in strays:
        await write(api.opened.driver, key, b"stray")
    monkeypatch.setattr("storage.local.driver.PAGE_SIZE", 2)
    monkeypatch.setattr("storage.s3.bucket.PAGE_SIZE", 2)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    for size in (1, 2, 3, 500):
        monkeypatch.setattr(module, "PAGE_SIZE", size)
        report = await fsck(api.opened)
        assert (report.rows, report.objects) == (12, 12)
        assert sorted(describe(report)) == sorted(
            [(FindingKind.MISSING, row.key, RepairAction.NONE) for row in lost]
            + [(FindingKind.UNOWNED, key, RepairAction.NONE) for key in strays]
        )


async def test_a_store_that_is_away_is_no_finding(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.push_blob(NAME, b"there")
    row = await find_row(api.opened, Digest.of(b"there"))
    await api.opened.driver.delete(row.key)

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(api.opened.driver, "stat", away)
    with pytest.raises(StoreUnavailableError):
        await fsck(api.opened, repair=True)
    assert await list_damaged(api.opened) == {}


async def test_an_object_that_cannot_be_read_does_not_stop_the_others(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example an object that another user copied in: its bytes cannot be identified."""
    lost, driver = [b"lost 1", b"lost 2"], api.opened.driver
    keys = []
    for data in lost:
        await api.push_blob(NAME, data)
        await damage(driver, (await find_row(api.opened, Digest.of(data))).key, data, "gone")
        keys.append(orphan_key(api.opened, data))
        await write(driver, keys[-1], data)
    bad, real = min(keys), driver.open

    async def refuse(key: str, *rest: Any) -> Reader:
        if key == bad:
            raise StoreUnavailableError("denied")
        return await real(key, *rest)

    with monkeypatch.context() as refusing:
        refusing.setattr(driver, "open", refuse)
        report = await fsck(api.opened, repair=True)
    found = [each for each in describe(report) if each[0] is FindingKind.UNOWNED]
    assert sorted(found) == sorted(
        (FindingKind.UNOWNED, key, RepairAction.NONE if key == bad else RepairAction.ADOPTED)
        for key in keys
    )
    assert bad in list_stored(driver)
    await fsck(api.opened, repair=True)
    assert [await get(api, data) for data in lost] == lost


@one_place
async def test_an_order_that_is_wrong_ends_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"1", b"2"):
        await api.push_blob(NAME, data)
    real = api.opened.driver.iter_objects

    async def backwards() -> AsyncIterator[list[StoredObject]]:
        pages = [page async for page in real()]
        for page in reversed(pages):
            yield page

    monkeypatch.setattr(api.opened.driver, "iter_objects", backwards)
    with pytest.raises(ConflictError, match="in order"):
        await fsck(api.opened, repair=True)
    assert await list_damaged(api.opened) == {}


# Changes between the listing of objects and the reading of rows.


def after_each_page(
    api: Api, monkeypatch: pytest.MonkeyPatch, action: Callable[[], Awaitable[object]]
) -> None:
    real = api.opened.driver.iter_objects

    async def paged() -> AsyncIterator[list[StoredObject]]:
        async for page in real():
            await action()
            yield page
        await action()

    monkeypatch.setattr(api.opened.driver, "iter_objects", paged)


async def test_what_is_pushed_and_deleted_meanwhile_is_no_finding(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = 0
    old = blob_bytes("old", 1000)
    await api.push_blob(NAME, old)

    async def go_on() -> None:
        nonlocal pushed
        for _ in range(8):
            pushed += 1
            await api.push_blob(NAME, f"pushed {pushed}".encode())
        # A listed object loses its row and its bytes.
        row = await api.opened.database.read(lambda tx: blobs.find_anywhere(tx, Digest.of(old)))
        if row is not None and pushed == 8:
            await api.opened.registry.blobs.note_damage(row)
            await api.push_blob(NAME, old)
            await api.opened.registry.deletions.sweep()

    after_each_page(api, monkeypatch, go_on)
    report = await fsck(api.opened, repair=True)
    assert describe(report) == []
    assert pushed >= 16
    assert await list_damaged(api.opened) == {}
    assert await get(api, old) == old


async def push_beside(
    api: Api, monkeypatch: pytest.MonkeyPatch, *, grace: float
) -> tuple[Report, bytes | int]:
    """Publish the bytes of a push, without a row for the blob yet, during the comparison."""
    reports = []
    link = Publication.link

    async def late(publication: Publication, *rest: Any, **more: Any) -> None:
        reports.append(await fsck(api.opened, repair=True, grace=grace))
        await link(publication, *rest, **more)
        await api.opened.registry.deletions.sweep()

    with monkeypatch.context() as beside:
        beside.setattr(Publication, "link", late)
        beside.setattr(StagingArea, "takes_whole", False)  # else nothing runs between the two
        await push_in_chunks(api, NAME, BIG)
    return reports[0], await get(api, BIG)


async def test_an_upload_in_flight_is_its_sessions(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, content = await push_beside(api, monkeypatch, grace=0)
    assert describe(report) == []
    assert report.objects >= 1  # includes what a bucket had staged
    assert content == BIG


async def test_without_sessions_its_age_would_still_save_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ownership, "_list_of_sessions", lambda *_: set())
    report, content = await push_beside(api, monkeypatch, grace=3600)
    assert report.young == 1
    assert content == BIG


async def test_without_sessions_and_age_it_would_be_removed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the two tests above."""
    monkeypatch.setattr(key_ownership, "_list_of_sessions", lambda *_: set())
    report, content = await push_beside(api, monkeypatch, grace=0)
    assert [action for _, _, action in describe(report)] == [RepairAction.QUEUED_FOR_DELETION]
    assert content != BIG


async def test_two_runs_at_once_do_not_undo_each_other(start: Start) -> None:
    """Otherwise one run deletes an object that the other has given to a blob."""
    async with start() as api, start() as other:
        contents = [f"blob {n}".encode() for n in range(6)]
        for data in contents:
            digest = await api.push_blob(NAME, data)
            await damage(api.opened.driver, (await find_row(api.opened, digest)).key, data, "gone")
            for _ in range(3):  # one of the three is needed
                await write(api.opened.driver, orphan_key(api.opened, data), data)
        await asyncio.gather(
            *(fsck(each.opened, repair=True) for each in (api, other) for _ in range(2))
        )
        while await api.opened.registry.deletions.sweep():
            pass
        assert [await get(api, data) for data in contents] == contents
        assert len(list_stored(api.opened.driver)) == len(contents)
        assert describe(await fsck(api.opened)) == []


@one_place
async def test_what_is_found_is_kept_up_to_a_number(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FINDINGS", 2)
    assert isinstance(api.opened.driver, LocalDriver)
    for n in range(5):
        await write(api.opened.driver, orphan_key(api.opened, b"%d" % n), b"stray")
    report = await fsck(api.opened)
    assert (len(report.findings), report.counts[FindingKind.UNOWNED], report.open) == (2, 5, 5)


async def test_a_bucket_holds_nothing_else(api: Api) -> None:
    """Internal objects of a store are not listed."""
    await api.push_blob(NAME, b"mine")
    report = await fsck(api.opened)
    assert (report.objects, report.open) == (1, 0)
    if isinstance(api.opened.driver, S3Driver):
        assert len(list_bucket(api.opened.driver, "")) > 1
