"""Changes during a scrub, and the job."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.content import blobs
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from registry.services.maintenance import scrub as module
from registry.services.throttle import Throttle
from storage.digest import Digest, Hasher
from tests.api.conftest import Api
from tests.services.scrub.conftest import (
    NAME,
    Start,
    damage,
    find_row,
    list_damaged,
    one_place,
    scrub,
)
from tests.services.scrub.passes.helpers import MIB, url
from tests.support.clock import MovableClock
from tests.support.kit import find_job

pytestmark = pytest.mark.anyio


# A blob changes between its reading and the recording of the result.


async def heal(api: Api, row: BlobRow, data: bytes) -> None:
    await api.opened.registry.blobs.note_damage(row)
    await api.push_blob(NAME, data)


async def collect(api: Api, row: BlobRow, data: bytes) -> None:
    """Delete the blob as the registry does: the rows first, then the bytes."""
    assert (await api.http.delete(url(row.digest))).status_code == 202

    def work(tx: Transaction) -> None:
        tx.execute(sa.delete(tables.blobs).where(tables.blobs.c.digest == row.digest))
        pending_deletions.insert(tx, row.store, row.key, "test")

    await api.opened.database.write(work, actor="ann")
    await api.opened.registry.deletions.sweep()
    await api.push_blob(NAME, data)


async def move(api: Api, row: BlobRow, data: bytes) -> None:
    """Move the blob as `moorage storage copy` does."""

    async def body() -> Any:
        yield data

    assert await api.opened.registry.blob_writer.replace(row, body(), 0)
    await api.opened.registry.deletions.sweep()


CHANGES: dict[str, Callable[[Api, BlobRow, bytes], Awaitable[None]]] = {
    "healed": heal,
    "collected": collect,
    "moved": move,
}


async def scrub_during(api: Api, change: str, how: str, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """Find a blob corrupt that has changed by the time the result is recorded."""
    data = b"what is read"
    digest = await api.push_blob(NAME, data)
    row = await find_row(api.opened, digest)
    await damage(api.opened.driver, row.key, data, how)
    real = module.Scrub._look

    async def look(scrubbing: module.Scrub, found: BlobRow, pace: Throttle) -> Any:
        seen = await real(scrubbing, found, pace)
        await CHANGES[change](api, row, data)
        return seen

    with monkeypatch.context() as racing:
        racing.setattr(module.Scrub, "_look", look)
        await scrub(api.opened)
    return digest


@pytest.mark.parametrize("how", ["flipped", "gone"])
@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_found_of_other_bytes_is_not_noted(
    api: Api, monkeypatch: pytest.MonkeyPatch, change: str, how: str
) -> None:
    digest = await scrub_during(api, change, how, monkeypatch)
    assert await list_damaged(api.opened) == {}
    assert (await api.http.get(url(digest))).content == b"what is read"


@one_place
async def test_without_that_look_a_whole_blob_would_be_called_damaged(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: without the second check a whole blob is recorded as corrupt."""

    def set_state(tx: Transaction, row: BlobRow, state: blobs.BlobState) -> bool:
        query = sa.update(tables.blobs).where(tables.blobs.c.digest == row.digest)
        return tx.execute(query.values(state=state.value)).rowcount > 0

    monkeypatch.setattr(blobs, "set_state", set_state)
    digest = await scrub_during(api, "healed", "flipped", monkeypatch)
    assert list(await list_damaged(api.opened)) == [str(digest)]


# The job.


async def test_the_first_pass_is_an_interval_after_the_first_push(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    movable_clock = MovableClock(monkeypatch)
    async with start(scrub__interval="10d") as api:
        job = find_job(api.opened, "scrub")
        assert not await job.is_due()
        await api.push_image(NAME, "latest")
        movable_clock.forward(9 * 86_400)
        assert not await job.is_due()
        assert await job.run() == 0
        assert await api.opened.registry.scrub.find() is None
        movable_clock.forward(86_400)
        assert await job.is_due()
        assert [await job.run(), await job.run()] == [1, 3]  # its manifest, then its blobs
        assert await job.is_due()  # to continue
        assert await job.run() == 0
        assert not await job.is_due()
        text = (await api.http.get("/metrics")).text
        row = await api.opened.registry.scrub.find()
        assert row is not None
        assert row.finished_at is not None
        shown = next(
            line for line in text.splitlines() if line.startswith("moorage_scrub_finished_t")
        )
        assert abs(float(shown.split()[1]) - row.finished_at / 1e6) < 1
        movable_clock.forward(11 * 86_400)
        assert await job.is_due()
    async with start(scrub__interval="10d", scrub__enabled="false") as api:
        assert not await find_job(api.opened, "scrub").is_due()


@one_place
async def test_bytes_are_read_in_pieces_at_the_rate_of_the_settings(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []

    async def take(pace: Throttle, amount: int) -> None:
        taken.append((pace._rate, amount))

    monkeypatch.setattr(Throttle, "take", take)
    async with start(scrub__limit_rate="7MiB") as api:
        await api.push_blob(NAME, bytes(3 * MIB + 5))
        service = api.opened.registry.scrub
        await service.begin(restart=False)
        assert await service.run() == 1
        assert taken == [(7 * MIB, MIB)] * 3 + [(7 * MIB, 5)]
        taken.clear()
        await service.begin(restart=True)
        await service.run(5)
        assert {rate for rate, _ in taken} == {5}


@one_place
async def test_hashing_is_not_in_the_way_of_requests(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    real = Hasher.update

    def update(hasher: Hasher, data: bytes) -> None:
        seen.add(threading.get_ident())
        real(hasher, data)

    await api.push_blob(NAME, bytes(MIB))
    monkeypatch.setattr(Hasher, "update", update)
    await scrub(api.opened)
    assert seen
    assert threading.get_ident() not in seen
