"""Untagged manifests are deleted if the rules say so and nothing else refers to them."""

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Opening, Yard
from tests.support.accounts import OPERATOR
from tests.support.kit import descriptor, index_manifest

pytestmark = pytest.mark.anyio


async def test_untagged_ones_stay_by_default(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "latest")
    await yard.http.delete("/v2/app/manifests/latest")
    tally = await yard.exhaust()
    assert (tally.manifests, tally.blobs) == (0, 0)
    assert await yard.has_manifest("app", digest)


async def test_one_that_lost_its_tag_goes_after_a_grace_and_its_blobs_after_another(
    sweeping: Yard,
) -> None:
    old, _ = await sweeping.push_image("app", "latest", "old")
    new, _ = await sweeping.push_image("app", "latest", "new")
    await sweeping.age(GRACE - 60)
    assert (await sweeping.collect()).manifests == 0
    await sweeping.age(61)
    tally = await sweeping.collect()
    assert (tally.manifests, tally.blobs) == (1, 0)
    assert not await sweeping.has_manifest("app", old)
    assert (await sweeping.exhaust()).blobs == 3
    assert await sweeping.has_manifest("app", new)


async def test_collected_ones_give_their_room_in_a_quota_back(sweeping: Yard) -> None:
    quotas = sweeping.opened.access.quotas
    await quotas.set("app", 1 << 20, OPERATOR)
    _, old = await sweeping.push_image("app", "latest", "old")
    await sweeping.push_image("app", "latest", "new")
    [before] = await quotas.list_page(9)
    await sweeping.age()
    assert (await sweeping.collect()).manifests == 1
    [after] = await quotas.list_page(9)
    assert before.standing.used - after.standing.used == len(old)


async def test_one_tagged_again_stays(sweeping: Yard) -> None:
    digest, raw = await sweeping.push_image("app", "latest")
    await sweeping.http.delete("/v2/app/manifests/latest")
    await sweeping.put_manifest("app", "again", raw)
    assert (await sweeping.exhaust()).manifests == 0
    assert await sweeping.has_manifest("app", digest)


async def test_children_of_an_index_go_after_it_and_not_before(sweeping: Yard) -> None:
    child, raw = await sweeping.push_image("app", "")
    index = index_manifest([raw])
    await sweeping.put_manifest("app", "latest", index)
    assert (await sweeping.exhaust()).manifests == 0
    assert await sweeping.has_manifest("app", child)
    await sweeping.http.delete("/v2/app/manifests/latest")
    tally = await sweeping.exhaust()
    assert (tally.manifests, tally.blobs) == (2, 3)
    assert await sweeping.count_rows() == {
        "repositories": 0,
        "manifests": 0,
        "repository_blobs": 0,
        "blobs": 0,
    }
    assert sweeping.list_stored() == []


async def test_referrers_go_after_their_subject_and_not_before(sweeping: Yard) -> None:
    subject, raw = await sweeping.push_image("app", "latest")
    about = {"subject": descriptor(raw, "application/vnd.oci.image.manifest.v1+json")}
    signature, _ = await sweeping.push_image("app", "", "signature", **about)
    assert (await sweeping.exhaust()).manifests == 0
    await sweeping.http.delete("/v2/app/manifests/latest")
    assert (await sweeping.exhaust()).manifests == 2
    assert not await sweeping.has_manifest("app", subject)
    assert not await sweeping.has_manifest("app", signature)


async def test_a_head_by_digest_is_a_promise_for_a_grace(sweeping: Yard) -> None:
    digest, _ = await sweeping.push_image("app", "")
    await sweeping.age(GRACE - 60)
    assert (await sweeping.http.head(f"/v2/app/manifests/{digest}")).status_code == 200
    await sweeping.age(GRACE - 60)
    assert (await sweeping.collect()).manifests == 0
    await sweeping.age(GRACE / 4 + 61)
    assert (await sweeping.collect()).manifests == 1


async def test_the_first_rule_that_matches_decides(open_yard: Opening) -> None:
    rules = (
        '[{"pattern": "ci/kept", "untagged": "keep"}, {"pattern": "ci/**", "untagged": "delete"}]'
    )
    async with open_yard({"gc.rules": rules}) as yard:
        for name in ("app", "ci/kept", "ci/app"):
            await yard.push_image(name, "", name)
        assert (await yard.exhaust()).manifests == 1
        assert (await yard.http.get("/v2/_catalog")).json()["repositories"] == ["app", "ci/kept"]
    async with open_yard({"gc.untagged": "delete"}) as yard:  # new rules: examine all again
        await yard.collect()
        assert (await yard.exhaust()).manifests == 2
        assert (await yard.http.get("/v2/_catalog")).json()["repositories"] == []


async def test_one_that_the_rules_kept_has_a_grace_when_they_no_longer_do(
    open_yard: Opening,
) -> None:
    """A client may have read the manifest while reads were not recorded, and may rely on it."""
    async with open_yard() as yard:
        digest, _ = await yard.push_image("app", "")
        await yard.age(GRACE)
        await yard.collect()
        assert (await yard.http.head(f"/v2/app/manifests/{digest}")).status_code == 200
    async with open_yard({"gc.untagged": "delete"}) as yard:
        assert (await yard.collect()).manifests == 0
        assert await yard.has_manifest("app", digest)
        await yard.age(GRACE)
        assert (await yard.collect()).manifests == 1


async def test_one_that_cannot_be_read_stops_what_it_might_depend_on(sweeping: Yard) -> None:
    """It is retained, and so is all content that it names or might name."""
    digest, _ = await sweeping.push_image("app", "")
    await sweeping.push_image("other", "", "other")
    row = next(r for r in await sweeping.list_rows(tables.manifests) if r.digest == digest)

    def damage(tx: Transaction) -> None:
        raw = tables.manifest_bytes
        tx.execute(sa.update(raw).where(raw.c.manifest_id == row.id).values(bytes=b"{"))

    await sweeping.opened.database.write(damage, actor="test")
    assert (await sweeping.exhaust()).blobs == 3
    lone = await sweeping.push_blob("app", b"named by it, perhaps")
    assert (await sweeping.exhaust()).blobs == 0
    assert await sweeping.has_blob("app", lone)
    assert await sweeping.has_blob("app", Digest.of(b"layer one "))
    assert (await sweeping.http.get("/v2/_catalog")).json()["repositories"] == ["app"]


async def test_pushing_it_again_lets_things_go_on(sweeping: Yard) -> None:
    digest, raw = await sweeping.push_image("app", "")
    row = next(r for r in await sweeping.list_rows(tables.manifests) if r.digest == digest)

    def note(tx: Transaction) -> None:
        values = {"repository_id": row.repository_id, "digest": digest, "found_at": 1}
        tx.execute(sa.insert(tables.unreadable_manifests).values(values))

    await sweeping.opened.database.write(note, actor="test")
    assert (await sweeping.exhaust()).manifests == 0
    await sweeping.put_manifest("app", str(digest), raw)
    assert (await sweeping.exhaust()).manifests == 1
