"""Tests of blobs: one row each, visible only through links, and each link recorded once."""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from registry.metadata import tables
from registry.metadata.content import blobs, manifest_edges, manifests, repositories
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.gc import pending_deletions
from registry.oci.names import RepositoryName
from tests.metadata.rows import (
    NAME,
    STORE,
    add,
    add_blob,
    blob,
    digest,
    digest_of,
    events,
    find,
    held_open,
    image,
    race,
    rows,
)
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

PARAMETERS = 999
"""Maximum number of parameters of a statement before SQLite 3.32.

Since then it is 32,766, and on PostgreSQL 65,535. A manifest of 4 MiB names up to 40,000 blobs.
"""


async def test_is_found_only_where_it_is_linked(database: Database) -> None:
    def work(tx: Transaction) -> list[BlobRow | None]:
        add_blob(tx, repositories.ensure(tx, NAME), "x")
        repositories.ensure(tx, RepositoryName("other"))
        return [
            blobs.find(tx, NAME, digest("x")),
            blobs.find(tx, RepositoryName("other"), digest("x")),
            blobs.find(tx, RepositoryName("none"), digest("x")),
            blobs.find(tx, NAME, digest("y")),
            blobs.find_anywhere(tx, digest("x"), keep=True),
            blobs.find_anywhere(tx, digest("y"), keep=True),
        ]

    found = await database.write(work, actor="ann")
    assert found == [blob("x"), None, None, None, blob("x"), None]


async def test_repositories_that_link_it_are_paged_in_byte_order(database: Database) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a0", "a_b", "aa"]

    def work(tx: Transaction) -> None:
        for name in names:
            add_blob(tx, repositories.ensure(tx, RepositoryName(name)), "x")
        add_blob(tx, repositories.ensure(tx, RepositoryName("a1")), "y")

    await database.write(work, actor="ann")
    listed = await database.read(lambda tx: blobs.list_repositories(tx, digest("x"), 9))
    assert sorted(str(name) for name in listed) == sorted(names)
    some = [RepositoryName(name) for name in ("aa", "a/b", "a1", "unborn")]
    listed = await database.read(lambda tx: blobs.list_repositories(tx, digest("x"), 9, some))
    assert sorted(str(name) for name in listed) == ["a/b", "aa"]


async def test_put_again_points_at_new_bytes(database: Database) -> None:
    def work(tx: Transaction) -> BlobRow | None:
        blobs.put(tx, blob("x"))
        blobs.set_state(tx, blob("x"), BlobState.DAMAGED)
        blobs.put(tx, blob("x", "blobs/x.1"))
        return blobs.lock(tx, digest("x"))

    assert await database.write(work, actor="ann") == blob("x", "blobs/x.1")


async def test_a_new_row_leaves_an_older_one_as_it_is(database: Database) -> None:
    def work(tx: Transaction) -> list[object]:
        inserted = [blobs.insert_new(tx, blob("x", key)) for key in ("blobs/x.0", "blobs/x.1")]
        return [*inserted, blobs.lock(tx, digest("x")), blobs.lock(tx, digest("y"))]

    found = blob("x", "blobs/x.0")
    assert await database.write(work, actor="ann") == [True, False, found, None]


async def test_a_state_is_that_of_a_key(database: Database) -> None:
    def work(tx: Transaction) -> list[object]:
        blobs.put(tx, blob("x"))
        stale = blobs.set_state(tx, blob("x", "an older key"), BlobState.MISSING)
        missing = replace(blob("x"), state=BlobState.MISSING)
        stale |= blobs.set_state(tx, missing, BlobState.DAMAGED)
        live = blobs.count_not_live(tx)
        blobs.put(tx, blob("y"))
        fresh = [
            blobs.set_state(tx, blob("x"), BlobState.MISSING),
            blobs.set_state(tx, blob("y"), BlobState.DAMAGED),
        ]
        return [stale, live, *fresh, blobs.count_not_live(tx)]

    assert await database.write(work, actor="ann") == [False, 0, True, True, 2]


async def test_one_row_and_no_stray_key_however_many_upload_it(replicas: list[Database]) -> None:
    """The key that loses must have an owner. Uploads do the same."""

    def link(seed: str, number: int) -> Callable[[Transaction], None]:
        mine = blob(seed, f"{seed} {number}")
        name = NAME if number % 2 else RepositoryName(f"other/{number}")

        def work(tx: Transaction) -> None:
            repository = repositories.ensure(tx, name)
            if not blobs.insert_new(tx, mine):
                pending_deletions.insert(tx, STORE, mine.key, "duplicate upload")
            blobs.link(tx, repository, mine.digest)

        return work

    for seed in ("a", "b", "c", "d"):
        await race(replicas, [link(seed, number) for number in range(16)])
        (row,) = await rows(replicas[0], tables.blobs, digest=digest(seed))
        losers = {row.key for row in await rows(replicas[0], tables.pending_deletions)}
        assert {f"{seed} {number}" for number in range(16)} - losers == {row.key}
        told = await rows(
            replicas[0], tables.change_feed, kind=Change.BLOB_LINK, digest=digest(seed)
        )
        assert len(told) == 9


async def test_a_link_is_told_once_in_a_transaction(database: Database) -> None:
    """Several manifests of a copied index share layers, so a layer is linked repeatedly."""

    def work(tx: Transaction) -> None:
        repository = repositories.ensure(tx, NAME)
        for _ in range(3):
            add_blob(tx, repository, "x")

    await database.write(work, actor="ann")
    kinds = [event.kind for event in await events(database)]
    assert kinds == [Change.REPOSITORY_CREATE, Change.BLOB_LINK]


async def test_a_link_does_not_wait_for_who_uses_it(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)

        def work(tx: Transaction) -> None:
            add_blob(tx, repositories.ensure(tx, NAME), "x")

        await database.write(work, actor="ann")
        with held_open(url) as tx:
            assert blobs.list_linked(tx, find(tx), [digest("x")]) == {digest("x"): BlobState.LIVE}
            async with asyncio.timeout(5):
                await database.write(work, actor="bob")
        await database.close()


async def test_a_link_ties_manifests_that_waited_for_it(database: Database) -> None:
    manifest = image("1", ["late", "never"])

    def work(tx: Transaction) -> list[list[Edge]]:
        repository = repositories.ensure(tx, NAME)
        edges = [Edge("layer", digest("late")), Edge("layer", digest("never"))]
        manifests.put(tx, repository, digest_of(manifest), manifest, edges)
        add_blob(tx, repositories.ensure(tx, RepositoryName("other")), "late")
        row = manifests.find(tx, NAME, digest_of(manifest))
        assert row is not None
        before = manifest_edges.list_of(tx, row.id)
        add_blob(tx, repository, "late")
        return [before, manifest_edges.list_of(tx, row.id)]

    before, after = await database.write(work, actor="ann")
    assert {edge.digest for edge in before if edge.blob} == set()
    assert {edge.digest for edge in after if edge.blob} == {digest("late")}


async def test_unlinking_is_told_and_leaves_other_repositories_alone(database: Database) -> None:
    def work(tx: Transaction) -> list[object]:
        for name in (NAME, RepositoryName("other")):
            add_blob(tx, repositories.ensure(tx, name), "x")
        repository = find(tx)
        took = [blobs.unlink(tx, repository, {digest("x"): None}) for _ in range(2)]
        return [*took, blobs.list_repositories(tx, digest("x"), 9)]

    assert await database.write(work, actor="ann") == [
        {digest("x")},
        set(),
        [RepositoryName("other")],
    ]
    (event,) = await rows(database, tables.change_feed, kind=Change.BLOB_UNLINK)
    assert (event.repository, event.digest) == (NAME, digest("x"))


async def test_users_of_a_blob_are_listed_up_to_twenty(database: Database) -> None:
    images = [image(str(number), ["shared", "shared too"]) for number in range(25)]

    def work(tx: Transaction) -> list[object]:
        for one in images:
            add(tx, one)
        repository = find(tx)
        return [
            blobs.list_manifests_using(tx, repository, digest("shared")),
            blobs.list_manifests_using(tx, repository, digest("config 7")),
            blobs.list_manifests_using(tx, repository, digest("unused")),
        ]

    shared, config, unused = await database.write(work, actor="ann")
    assert shared == sorted(map(digest_of, images))[:20]
    assert config == [digest_of(images[7])]
    assert unused == []


async def test_any_number_of_digests_can_be_asked_for(database: Database) -> None:
    asked = [digest(str(number)) for number in range(2 * PARAMETERS)]

    def work(tx: Transaction) -> list[object]:
        repository = repositories.ensure(tx, NAME)
        if tx.connection.dialect.name == "sqlite":
            raw = cast("sqlite3.Connection", tx.connection.connection.dbapi_connection)
            raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, PARAMETERS)
        for seed in ("5", "1666"):
            add_blob(tx, repository, seed)
        add(tx, image("x"))
        here = [*asked, digest_of(image("x"))]
        return [
            blobs.list_linked(tx, repository, here),
            [row.digest for row in manifests.list_present(tx, repository, here).values()],
        ]

    linked, present = await database.write(work, actor="ann")
    assert linked == dict.fromkeys([digest("5"), digest("1666")], BlobState.LIVE)
    assert present == [digest_of(image("x"))]


async def test_unlinking_waits_for_who_was_told_that_it_is_linked(postgres: Cluster) -> None:
    """No edge dangles, even without the lock on the repository that services take."""
    manifest = image("1", ["x"])
    with postgres.database() as url:
        database = Database(url)
        await database.write(
            lambda tx: add_blob(tx, repositories.ensure(tx, NAME), "x"), actor="ann"
        )
        with held_open(url) as tx:
            assert digest("x") in blobs.list_linked(tx, find(tx), [digest("x")])
            unlinking = asyncio.ensure_future(
                database.write(
                    lambda tx: blobs.unlink(tx, find(tx), {digest("x"): None}), actor="bob"
                )
            )
            await asyncio.sleep(0.3)
            assert not unlinking.done()
            edges = [Edge("layer", digest("x"), blob=True)]
            manifests.put(tx, find(tx), digest_of(manifest), manifest, edges)
        with pytest.raises(Exception, match="database is unavailable"):
            await unlinking
        assert len(await rows(database, tables.repository_blobs)) == 1
        await database.close()
