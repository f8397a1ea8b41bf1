"""Blobs are deleted after a grace period in which no manifest used them and no client saw them."""

import asyncio
from concurrent.futures import Future
from typing import Any

import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import OPERATOR
from registry.metadata import tables
from registry.metadata.content import manifests, repositories, uploads
from registry.metadata.engine.transaction import Change, Transaction
from registry.oci.names import RepositoryName
from registry.services.gc.batch import GcReport
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Yard
from tests.support.kit import image_manifest

pytestmark = pytest.mark.anyio

EMPTY = {"repositories": 0, "manifests": 0, "repository_blobs": 0, "blobs": 0}


async def test_an_upload_without_a_manifest_goes_after_its_grace(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"abandoned")
    await yard.age(GRACE - 60)
    assert (await yard.collect()).blobs == 0
    assert await yard.has_blob("app", digest)
    await yard.age(61)
    tally = await yard.collect()
    assert (tally.blobs, tally.bytes) == (1, 9)
    assert tally.repositories["app"].bytes == 9
    assert await yard.count_rows() == EMPTY
    assert yard.list_stored() == []
    assert await yard.list_rows(tables.gc_queue) == []
    assert await yard.list_rows(tables.pending_deletions) == []


async def test_what_a_manifest_uses_stays(yard: Yard) -> None:
    await yard.push_image("app", "latest")
    before = await yard.count_rows(), yard.list_stored()
    assert (await yard.exhaust()).blobs == 0
    assert (await yard.count_rows(), yard.list_stored()) == before
    assert await yard.list_rows(tables.gc_queue) == []


async def test_a_deleted_image_takes_its_blobs_but_for_those_others_use(yard: Yard) -> None:
    shared, config = await yard.push_blob("app", b"shared"), await yard.push_blob("app", b"{}")
    first = image_manifest(b"{}", [b"shared"])
    second = image_manifest(b"{}", [b"shared", b"own"])
    own = await yard.push_blob("app", b"own")
    await yard.put_manifest("app", "first", first)
    await yard.put_manifest("app", "second", second)
    await yard.http.delete(f"/v2/app/manifests/{Digest.of(second)}")
    tally = await yard.exhaust()
    assert (tally.manifests, tally.blobs, tally.bytes) == (0, 1, 3)
    assert [await yard.has_blob("app", d) for d in (shared, config, own)] == [True, True, False]
    assert await yard.has_manifest("app", "first")


async def test_a_link_goes_from_one_repository_and_the_blob_stays_in_another(yard: Yard) -> None:
    _, raw = await yard.push_image("kept", "latest")
    layer = Digest.of(b"layer one ")
    mounted = await yard.http.post(f"/v2/other/blobs/uploads/?mount={layer}&from=kept")
    assert mounted.status_code == 201
    tally = await yard.exhaust()
    assert tally.blobs == 0
    assert not await yard.has_blob("other", layer)
    assert await yard.has_blob("kept", layer)
    assert (await yard.http.get("/v2/_catalog")).json() == {"repositories": ["kept"]}
    assert raw


async def test_a_head_is_a_promise_for_a_grace(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"layer")
    await yard.age(GRACE - 60)
    assert (await yard.http.head(f"/v2/app/blobs/{digest}")).status_code == 200
    await yard.age(GRACE - 60)
    assert (await yard.collect()).blobs == 0
    assert await yard.has_blob("app", digest)


async def test_a_head_elsewhere_is_none(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"layer")
    await yard.push_blob("other", b"layer")
    await yard.age(GRACE - 60)
    assert (await yard.http.head(f"/v2/other/blobs/{digest}")).status_code == 200
    await yard.age(61)
    await yard.collect()
    assert not await yard.has_blob("app", digest)
    assert await yard.has_blob("other", digest)


@pytest.mark.parametrize("how", ["upload", "mount"])
async def test_pushing_what_is_there_keeps_it_for_another_grace(yard: Yard, how: str) -> None:
    digest = await yard.push_blob("app", b"layer")
    await yard.push_blob("other", b"layer")
    await yard.age(GRACE - 60)
    if how == "upload":
        await yard.push_blob("app", b"layer")
    else:
        await yard.http.post(f"/v2/app/blobs/uploads/?mount={digest}&from=other")
    await yard.age(61)
    await yard.collect()
    assert await yard.has_blob("app", digest)
    assert not await yard.has_blob("other", digest)


async def test_a_head_writes_only_where_it_must(yard: Yard) -> None:
    """A HEAD writes nothing if a manifest uses the blob or the last touch is recent.

    Recent means within a quarter of the grace period.
    """
    lone = await yard.push_blob("app", b"lone")
    await yard.push_image("app", "latest")
    used = Digest.of(b"layer one ")

    async def changed_by_head(digest: Digest) -> bool:
        before = await yard.list_rows(tables.gc_queue)
        assert (await yard.http.head(f"/v2/app/blobs/{digest}")).status_code == 200
        return await yard.list_rows(tables.gc_queue) != before

    assert await changed_by_head(lone)
    await yard.age(GRACE / 4 - 60)
    assert not await changed_by_head(lone)
    assert not await changed_by_head(used)
    await yard.age(61)
    assert await changed_by_head(lone)
    assert not await changed_by_head(used)


async def test_a_blob_unlinked_by_hand_stays_for_a_grace(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"layer")
    await yard.age(GRACE - 60)
    assert (await yard.http.delete(f"/v2/app/blobs/{digest}")).status_code == 202
    await yard.age(61)
    assert (await yard.collect()).blobs == 0
    assert len(yard.list_stored()) == 1
    await yard.age(GRACE)
    assert (await yard.collect()).blobs == 1
    assert yard.list_stored() == []


async def test_a_deleted_repository_frees_its_blobs(yard: Yard) -> None:
    await yard.push_image("app", "latest")
    await yard.push_image("app", "other", "other")
    await yard.push_image("kept", "latest")
    await yard.opened.registry.repositories.delete(RepositoryName("app"), OPERATOR)
    tally = await yard.exhaust()
    assert tally.blobs == 3
    assert len(yard.list_stored()) == 3
    assert await yard.has_manifest("kept", "latest")


async def test_what_goes_is_told_in_the_feed(yard: Yard) -> None:
    digest = await yard.push_blob("app", b"layer")
    await yard.exhaust()
    told = [row for row in await yard.list_rows(tables.change_feed) if row.actor == "gc"]
    assert [row.kind for row in told] == [Change.BLOB_UNLINK, Change.REPOSITORY_DELETE]
    assert told[0].digest == digest


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_an_upload_that_ends_and_the_end_of_its_repository_do_not_wait_for_each_other(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One locks its session, which the other detaches from the repository that it removes."""
    await yard.push_blob("app", b"old")
    location = await yard.start_upload("app")
    await yard.age()
    loop = asyncio.get_running_loop()
    blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    collecting: list[Future[GcReport]] = []
    attempts: list[str] = []
    take, remove = uploads.take, repositories.remove_if_empty

    def taking(tx: Transaction, upload_id: str, claim: int) -> Any:
        taken = take(tx, upload_id, claim)
        attempts.append("upload")
        if not collecting:
            collecting.append(asyncio.run_coroutine_threadsafe(yard.collect(), loop))
            while not tx.execute(blocked).scalar_one():
                assert not collecting[0].done()
        return taken

    def removing(tx: Transaction, repository: repositories.RepositoryRow) -> None:
        attempts.append("collection")
        remove(tx, repository)

    monkeypatch.setattr(uploads, "take", taking)
    monkeypatch.setattr(repositories, "remove_if_empty", removing)
    digest = Digest.of(b"new")
    answer = await yard.http.put(location, params={"digest": str(digest)}, content=b"new")
    assert answer.status_code == 201
    assert (await asyncio.wrap_future(collecting[0])).blobs == 1
    assert await yard.has_blob("app", digest)
    assert attempts == ["upload", "collection"]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_layer_that_comes_beside_its_manifest_is_kept_by_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer is non-distributable, so the manifest can be pushed without it."""
    config, layer = b"{}", b"foreign"
    raw = image_manifest(config, [layer]).replace(
        b"image.layer.v1", b"image.layer.nondistributable.v1"
    )
    await yard.push_blob("app", config)
    loop = asyncio.get_running_loop()
    blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    pushing: list[Future[Digest]] = []
    put = manifests.put

    def putting(tx: Transaction, *rest: Any) -> None:
        pushing.append(asyncio.run_coroutine_threadsafe(yard.push_blob("app", layer), loop))
        while not (pushing[0].done() or tx.execute(blocked).scalar_one()):
            pass
        put(tx, *rest)

    monkeypatch.setattr(manifests, "put", putting)
    assert (await yard.put_manifest("app", "latest", raw)).status_code == 201
    digest = await asyncio.wrap_future(pushing[0])
    await yard.age()
    await yard.collect()
    await yard.age()
    await yard.collect()
    assert await yard.has_blob("app", digest)
