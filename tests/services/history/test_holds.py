"""Holds keep manifests and everything that they reference, whatever tries to delete them."""

import asyncio

import httpx
import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import OPERATOR as PRINCIPAL
from registry.errors import DatabaseUnavailableError, NotFoundError, ProtectedError
from registry.http.errors import SENTENCES
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.oci.media_types import OCI_MANIFEST
from registry.oci.referrers import fallback_tag
from registry.services.protection.holds import HoldRow
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Yard
from tests.services.history.conftest import NAME, OPERATOR, delete, list_audited, pull
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio


async def hold(yard: Yard, digest: Digest, life: float | None = None) -> HoldRow:
    return await yard.opened.registry.holds.add(NAME, digest, "evidence", OPERATOR, life=life)


def told(answer: httpx.Response) -> tuple[int, list[str], str]:
    return answer.status_code, codes(answer), answer.json()["errors"][0]["message"]


async def test_nobody_deletes_what_is_held(sweeping: Yard) -> None:
    child, raw = await sweeping.push_image("app", "")
    whole = index_manifest([raw])
    digest = Digest.of(whole)
    await sweeping.put_manifest("app", "latest", whole)
    made = await hold(sweeping, digest)
    said = f"{SENTENCES['DENIED']}: {digest} is protected: hold {made.id}: evidence"
    assert told(await delete(sweeping, "app", digest)) == (403, ["DENIED"], said)
    assert (await delete(sweeping, "app", child)).status_code == 405
    layer = f"/v2/app/blobs/{Digest.of(b'layer one ')}"
    assert (await sweeping.http.delete(layer)).status_code == 405
    with pytest.raises(ProtectedError, match="evidence"):
        await sweeping.opened.registry.repositories.delete(NAME, PRINCIPAL, OPERATOR)
    # The tags of a held manifest can still move and be deleted.
    await sweeping.push_image("app", "latest", "other")
    assert (await delete(sweeping, "app", "latest")).status_code == 202
    await sweeping.exhaust()
    assert await pull(sweeping, "app", digest) == str(digest)
    found = await sweeping.opened.registry.explainer.explain(child)
    steps = [[(step.kind, step.name) for step in path] for path in found.paths]
    assert steps == [[("hold", "evidence"), ("index", str(digest))]]
    # The hold protects the manifest until it is removed, and then for one grace period.
    await sweeping.opened.registry.holds.remove(made.id, OPERATOR)
    await sweeping.age(GRACE - 60)
    await sweeping.collect()
    assert await pull(sweeping, "app", digest) == str(digest)
    await sweeping.exhaust()
    assert set((await sweeping.count_rows()).values()) == {0}
    target = f"app@{digest}"
    assert await list_audited(sweeping, "hold.") == [
        ("hold.create", target),
        ("hold.delete", target),
    ]


async def test_each_of_several_is_enough(yard: Yard) -> None:
    digest, _ = await yard.push_image("app", "")
    first, second = await hold(yard, digest), await hold(yard, digest)
    await yard.opened.registry.holds.remove(first.id, OPERATOR)
    assert (await delete(yard, "app", digest)).status_code == 403
    await yard.opened.registry.holds.remove(second.id, OPERATOR)
    assert (await delete(yard, "app", digest)).status_code == 202
    with pytest.raises(NotFoundError):
        await yard.opened.registry.holds.remove(second.id, OPERATOR)


async def test_one_that_expires_goes_by_itself(sweeping: Yard) -> None:
    digest, _ = await sweeping.push_image("app", "")
    other, _ = await sweeping.push_image("app", "", "other")
    await hold(sweeping, digest, life=3600)
    await hold(sweeping, other, life=3600)
    await sweeping.age(3590)
    await sweeping.collect()
    assert (await delete(sweeping, "app", digest)).status_code == 403
    await sweeping.age(20)
    # An expired hold has no effect, even before it is removed.
    assert (await delete(sweeping, "app", digest)).status_code == 202
    await sweeping.collect()
    assert await sweeping.list_rows(tables.holds) == []
    assert await list_audited(sweeping, "hold.expire") == [("hold.expire", f"app@{other}")]
    await sweeping.exhaust()
    assert set((await sweeping.count_rows()).values()) == {0}


async def test_the_index_of_a_fallback_tag_holds_its_children_when_it_is_held(yard: Yard) -> None:
    """The index of a fallback tag does not retain its children unless it is held."""
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"subject")), "size": 7}
    child, raw = await yard.push_image("app", "", subject=subject)
    for held in (False, True):
        whole = index_manifest([raw], annotations={"held": str(held)})
        await yard.put_manifest("app", str(fallback_tag(Digest.of(b"subject"))), whole)
        if held:
            await hold(yard, Digest.of(whole))
            assert (await delete(yard, "app", child)).status_code == 405
        else:
            assert (await delete(yard, "app", child)).status_code == 202
            await yard.push_image("app", "", subject=subject)


async def test_what_is_not_there_cannot_be_held(yard: Yard) -> None:
    with pytest.raises(NotFoundError):
        await hold(yard, Digest.of(b"nothing"))
    await yard.push_image("app", "latest")
    with pytest.raises(NotFoundError):
        await hold(yard, Digest.of(b"nothing"))


async def test_a_hold_and_a_deletion_at_once(yard: Yard) -> None:
    """If a hold and a deletion race, exactly one of them fails."""
    for number in range(12):
        digest, _ = await yard.push_image("app", "", str(number))
        deleting = asyncio.create_task(delete(yard, "app", digest))
        if number % 2:
            await asyncio.sleep(0.001 * number)
        try:
            await hold(yard, digest)
            held = True
        except NotFoundError:
            held = False
        status = (await deleting).status_code
        assert status == (403 if held else 202)
        assert await yard.has_manifest("app", digest) is held


async def test_the_database_refuses_what_asks_nobody(yard: Yard) -> None:
    """An older version that runs at the same time does not check holds, so the database must."""
    digest, _ = await yard.push_image("app", "")
    await hold(yard, digest)
    [row] = await yard.list_rows(tables.manifests)

    def work(tx: Transaction) -> None:
        for table in (tables.manifest_edges, tables.manifest_bytes):
            tx.execute(sa.delete(table).where(table.c.manifest_id == row.id))
        tx.execute(sa.delete(tables.manifests).where(tables.manifests.c.id == row.id))

    with pytest.raises(DatabaseUnavailableError):
        await yard.opened.database.write(work, actor="test")
    assert await pull(yard, "app", digest) == str(digest)
