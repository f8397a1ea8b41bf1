"""Content older than the queue is examined once, a grace period after the upgrade."""

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import backfill
from registry.metadata.gc.queue import SECOND
from tests.services.gc.conftest import GRACE, Opening, Yard

pytestmark = pytest.mark.anyio


async def forget_queue(yard: Yard, since_upgrade: float) -> None:
    """Simulate a registry that was upgraded `since_upgrade` seconds ago and had no queue before."""

    def work(tx: Transaction) -> None:
        since = tx.now - int(since_upgrade * SECOND)
        tx.execute(sa.delete(tables.gc_queue))
        tx.execute(sa.update(tables.gc_state).values(backfill_cursor="", queue_created_at=since))

    await yard.opened.database.write(work, actor="test")


async def test_all_that_nothing_keeps_is_queued(
    sweeping: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAGE", 2)
    for name in ("one", "two"):
        await sweeping.push_image(name, "latest", "kept")
        await sweeping.push_image(name, "", name)
        await sweeping.push_blob(name, b"lone")
    unlinked = await sweeping.push_blob("three", b"unlinked")
    await sweeping.http.delete(f"/v2/three/blobs/{unlinked}")
    await forget_queue(sweeping, GRACE - 60)
    await sweeping.collect()
    assert (await sweeping.opened.registry.collector.get_status()).backfilling
    assert await sweeping.list_rows(tables.gc_queue) == []
    await forget_queue(sweeping, GRACE + 60)
    assert await sweeping.opened.registry.collector.is_due()
    await sweeping.collect()
    assert not (await sweeping.opened.registry.collector.get_status()).backfilling
    queued = [(row.repository_id, row.kind) for row in await sweeping.list_rows(tables.gc_queue)]
    assert sorted(queued) == [(0, "blob"), *[(n, k) for n in (1, 2) for k in ("link", "manifest")]]
    tally = await sweeping.exhaust()
    assert (tally.manifests, tally.blobs) == (2, 8)
    assert len(sweeping.list_stored()) == 3


async def test_a_new_registry_has_nothing_to_walk(open_yard: Opening) -> None:
    async with open_yard() as yard:
        assert not (await yard.opened.registry.collector.get_status()).backfilling
