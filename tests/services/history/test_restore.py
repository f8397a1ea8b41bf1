"""Restoring a tag, with everything below it that was deleted, within the grace period."""

import pytest
import sqlalchemy as sa

from registry import clock
from registry.auth.policy.principals import OPERATOR as PRINCIPAL
from registry.errors import (
    ManifestContentMissingError,
    ManifestUnknownError,
    QuotaExceededError,
    RepositoryUnknownError,
)
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.oci.references import Tag
from registry.services.content.history import ManifestState, Restored
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Yard
from tests.services.history.conftest import NAME, OPERATOR, delete, pull
from tests.support.kit import descriptor, image_manifest, index_manifest

pytestmark = pytest.mark.anyio

LATEST = Tag("latest")


async def restore(yard: Yard, tag: Tag = LATEST, at: int | None = None) -> Restored:
    return await yard.opened.registry.history.restore(NAME, tag, OPERATOR, at=at)


async def drop_repository(yard: Yard) -> None:
    await yard.opened.registry.repositories.delete(NAME, PRINCIPAL)


async def test_a_moved_tag_goes_back_and_forth(yard: Yard) -> None:
    one, _ = await yard.push_image("app", "latest", "one")
    between = clock.now_us()
    two, raw = await yard.push_image("app", "latest", "two")
    await yard.put_manifest("app", "latest", raw)  # The same digest again is not a move.
    assert await restore(yard) == Restored(one, 0)
    assert await pull(yard, "app", "latest") == str(one)
    assert await restore(yard) == Restored(two, 0)
    assert await restore(yard, at=between) == Restored(one, 0)
    assert await restore(yard, at=between) == Restored(one, 0)  # The tag is already there.
    moments = await yard.opened.registry.history.list_of_tag(NAME, LATEST, 100)
    assert [moment.change.digest for moment in moments] == [one, two, one, two, two, one]
    assert {moment.state for moment in moments} == {ManifestState.PRESENT}


async def test_a_deleted_tag_comes_back(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "latest")
    await delete(yard, "app", "latest")
    assert await restore(yard) == Restored(digest, 0)
    assert await pull(yard, "app", "latest") == str(digest)


async def test_a_deleted_index_comes_back_with_its_children_and_blobs(yard: Yard) -> None:
    """Children and blobs that were deleted on their own come back too."""
    children = [await yard.push_image("app", "", seed) for seed in ("one", "two")]
    index = index_manifest([raw for _, raw in children])
    await yard.put_manifest("app", "latest", index)
    await yard.push_image("app", "other", "three")
    for digest in (Digest.of(index), *(digest for digest, _ in children)):
        assert (await delete(yard, "app", digest)).status_code == 202
    layer = Digest.of(b"layer one one")
    assert (await yard.http.delete(f"/v2/app/blobs/{layer}")).status_code == 202
    [deleted, pushed] = await yard.opened.registry.history.list_of_tag(NAME, LATEST, 100)
    assert (deleted.change.digest, deleted.state) == (None, None)
    assert pushed.state is ManifestState.RESTORABLE
    await yard.age(GRACE - 60)
    await yard.collect()
    assert await restore(yard) == Restored(Digest.of(index), 3)
    assert await pull(yard, "app", "latest") == str(Digest.of(index))
    await yard.exhaust()  # The restored manifests are retained like pushed ones.
    assert await pull(yard, "app", "latest") == str(Digest.of(index))


async def test_what_a_rule_has_dropped_comes_back(sweeping: Yard) -> None:
    one, _ = await sweeping.push_image("app", "latest", "one")
    await sweeping.push_image("app", "latest", "two")
    await sweeping.age()
    assert (await sweeping.collect()).manifests == 1
    assert not await sweeping.has_manifest("app", one)
    assert await restore(sweeping) == Restored(one, 1)
    assert await pull(sweeping, "app", "latest") == str(one)


async def test_a_deleted_repository_is_born_anew(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "latest")
    before = clock.now_us()
    [old] = await yard.list_rows(tables.repositories)
    await drop_repository(yard)
    with pytest.raises(ManifestUnknownError, match="did not exist at that time"):
        await restore(yard, at=clock.now_us())
    [ended, _] = await yard.opened.registry.history.list_of_tag(NAME, LATEST, 100)
    assert (ended.change.kind, ended.state) == ("repository.delete", None)
    await yard.age(GRACE - 60)
    await yard.collect()
    assert await restore(yard, at=before) == Restored(digest, 1)
    assert await pull(yard, "app", "latest") == str(digest)
    [new] = await yard.list_rows(tables.repositories)
    assert new.generation != old.generation


async def test_what_no_quota_has_room_for_does_not_come_back(yard: Yard) -> None:
    quotas = yard.opened.access.quotas
    await quotas.set("*", 1000, OPERATOR)
    digest, _ = await yard.push_image("app", "latest")
    [full] = await quotas.list_page(9)
    used = full.standing.used
    assert used
    await drop_repository(yard)
    await quotas.set("*", used - 1, OPERATOR)
    with pytest.raises(QuotaExceededError):
        await restore(yard)
    [left] = await quotas.list_page(9)
    assert left.standing.used == 0
    await quotas.set("*", used, OPERATOR)
    assert await restore(yard) == Restored(digest, 1)
    [full] = await quotas.list_page(9)
    assert full.standing.used == used
    # A tag that moves to an existing manifest uses none of the quota.
    await delete(yard, "app", "latest")
    await quotas.set("*", 1, OPERATOR)
    assert await restore(yard) == Restored(digest, 0)


async def test_after_the_grace_it_is_gone(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "latest")
    await delete(yard, "app", digest)
    await yard.exhaust()
    assert await yard.list_rows(tables.removed_manifests) == []
    assert yard.list_stored() == []
    with pytest.raises(
        ManifestUnknownError, match="is deleted; a deleted manifest can be restored"
    ):
        await restore(yard)
    moments = await yard.opened.registry.history.list_of_tag(NAME, LATEST, 100)
    assert [moment.change.kind for moment in moments] == [
        "repository.delete",
        "tag.delete",
        "tag.set",
    ]
    assert moments[-1].state is ManifestState.GONE
    assert (await yard.count_rows())["repositories"] == 0


async def test_without_a_blob_nothing_comes_back(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "latest")
    await drop_repository(yard)

    def damage(tx: Transaction) -> None:
        row = tables.blobs.c
        tx.execute(sa.update(tables.blobs).where(row.size < 20).values(state="damaged"))

    await yard.opened.database.write(damage, actor="test")
    with pytest.raises(ManifestContentMissingError) as caught:
        await restore(yard)
    layers = [Digest.of(f"layer {number} ".encode()) for number in ("one", "two")]
    assert caught.value.missing == sorted(map(str, layers))
    assert (await yard.count_rows())["repositories"] == 0
    assert not await yard.has_manifest("app", digest)


async def test_bytes_that_are_not_what_they_were_do_not_come_back(yard: Yard) -> None:
    digest, raw = await yard.push_image("app", "latest")
    await delete(yard, "app", digest)

    def damage(tx: Transaction) -> None:
        tx.execute(sa.update(tables.removed_manifests).values(bytes=raw + b" "))

    await yard.opened.database.write(damage, actor="test")
    with pytest.raises(
        ManifestUnknownError, match="is deleted; a deleted manifest can be restored"
    ):
        await restore(yard)


async def test_what_a_manifest_only_named_does_not_come_with_it(yard: Yard) -> None:
    """Otherwise a manifest could name a blob of another repository and get it by a restore."""
    secret = await yard.push_blob("other", b"of somebody else")
    await yard.push_blob("app", b"{}")
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    raw = image_manifest(b"{}", [])
    raw = raw.replace(
        b'"layers": []', f'"layers": [{_json(descriptor(b"of somebody else", foreign))}]'.encode()
    )
    assert (await yard.put_manifest("app", "latest", raw)).status_code == 201
    assert not await yard.has_blob("app", secret)
    await drop_repository(yard)
    assert (await restore(yard)).manifests == 1
    assert await yard.has_manifest("app", "latest")
    assert not await yard.has_blob("app", secret)
    assert await yard.has_blob("other", secret)


def _json(part: dict[str, object]) -> str:
    return str(part).replace("'", '"')


async def test_what_never_was(yard: Yard) -> None:
    before = clock.now_us()
    with pytest.raises(RepositoryUnknownError):
        await restore(yard)
    with pytest.raises(RepositoryUnknownError):
        await yard.opened.registry.history.list_of_tag(NAME, LATEST, 9)
    await yard.push_image("app", "latest")
    with pytest.raises(ManifestUnknownError, match="did not exist at that time"):
        await restore(yard, at=before)
    with pytest.raises(ManifestUnknownError, match="has always pointed to the same manifest"):
        await restore(yard)
    history = yard.opened.registry.history
    with pytest.raises(
        ManifestUnknownError, match="is deleted; a deleted manifest can be restored"
    ):
        await history.restore(NAME, LATEST, OPERATOR, digest=Digest.of(b"nothing"))


async def test_a_manifest_without_a_tag_gets_one_by_its_digest(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "")
    await delete(yard, "app", digest)
    history = yard.opened.registry.history
    done = await history.restore(NAME, Tag("found"), OPERATOR, digest=digest)
    assert done == Restored(digest, 1)
    assert await pull(yard, "app", "found") == str(digest)
