"""Tests of the change feed as its readers see it, with every kind of change."""

import pytest

from registry.metadata.content import blobs, manifests, repositories, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.revisions import change_feed
from registry.metadata.revisions.change_feed import ChangeRow
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from tests.metadata.rows import NAME, add, digest, digest_of, find, image, read_pages

pytestmark = pytest.mark.anyio

LATEST = Tag("latest")


async def read_all(database: Database) -> list[ChangeRow]:
    return await database.read(lambda tx: change_feed.list_after(tx, 0, 1000))


async def test_every_kind_of_change_is_told_in_full(database: Database) -> None:
    one, two = image("1", ["layer"]), image("2", ["layer"])

    def push(tx: Transaction) -> int:
        add(tx, one, "latest")
        add(tx, two, "latest", "extra")
        return tx.now

    def clear(tx: Transaction) -> int:
        repository = repositories.find(tx, NAME, lock=True)
        assert repository is not None
        tags.delete(tx, repository, LATEST)
        tags.delete_all_of(tx, repository, digest_of(two))
        for manifest in (one, two):
            row = manifests.find(tx, NAME, digest_of(manifest))
            assert row is not None
            manifests.delete(tx, repository, row)
        for seed in ("config 1", "config 2", "layer"):
            blobs.unlink(tx, repository, {digest(seed): None})
        repositories.remove_if_empty(tx, repository)
        return tx.now

    pushed_at = await database.write(push, actor="ann")
    repository = await database.read(find)
    cleared_at = await database.write(clear, actor="bob")

    told = await read_all(database)
    assert [change.revision for change in told] == list(range(1, len(told) + 1))
    assert {(change.repository, change.generation) for change in told} == {
        (NAME, repository.generation)
    }
    assert {(change.actor, change.at) for change in told[:9]} == {("ann", pushed_at)}
    assert {(change.actor, change.at) for change in told[9:]} == {("bob", cleared_at)}
    d1, d2 = digest_of(one), digest_of(two)
    assert [(c.kind, c.tag, c.digest, c.old_digest) for c in told] == [
        (Change.REPOSITORY_CREATE, None, None, None),
        (Change.BLOB_LINK, None, digest("layer"), None),
        (Change.BLOB_LINK, None, digest("config 1"), None),
        (Change.MANIFEST_PUT, None, d1, None),
        (Change.TAG_SET, "latest", d1, None),
        (Change.BLOB_LINK, None, digest("config 2"), None),
        (Change.MANIFEST_PUT, None, d2, None),
        (Change.TAG_SET, "latest", d2, d1),
        (Change.TAG_SET, "extra", d2, None),
        (Change.TAG_DELETE, "latest", None, d2),
        (Change.TAG_DELETE, "extra", None, d2),
        (Change.MANIFEST_DELETE, None, d1, None),
        (Change.MANIFEST_DELETE, None, d2, None),
        (Change.BLOB_UNLINK, None, digest("config 1"), None),
        (Change.BLOB_UNLINK, None, digest("config 2"), None),
        (Change.BLOB_UNLINK, None, digest("layer"), None),
        (Change.REPOSITORY_DELETE, None, None, None),
    ]
    assert {change.kind for change in told} == set(Change)


async def test_is_read_in_pages_without_gaps(database: Database) -> None:
    for number in range(5):
        await database.write(lambda tx, n=number: add(tx, image(str(n))), actor="ann")  # type: ignore[misc]
    everything = await read_all(database)
    paged = await read_pages(
        database,
        lambda tx, last: change_feed.list_after(tx, last.revision if last else 0, 4),
    )
    assert paged == everything


async def test_a_tag_is_followed_through_all_lives_of_its_repository(database: Database) -> None:
    for number in range(2):
        await database.write(lambda tx, n=number: add(tx, image(str(n)), "latest"), actor="ann")  # type: ignore[misc]
        await database.write(lambda tx: add(tx, image("x"), "other"), actor="ann")
        await database.write(
            lambda tx: add(tx, image("y"), "latest", name=RepositoryName("another")), actor="ann"
        )
        await database.write(lambda tx: repositories.delete(tx, find(tx)), actor="ann")
    history = await database.read(lambda tx: change_feed.list_of_tag(tx, NAME, LATEST, 9))
    assert [change.digest for change in history] == [digest_of(image("1")), digest_of(image("0"))]
    assert len({change.generation for change in history}) == 2
    assert (
        await database.read(lambda tx: change_feed.list_of_tag(tx, NAME, LATEST, 1)) == history[:1]
    )
