"""In every order of the steps of a push and of the collector, acknowledged content exists.

Clients are real requests to the application in this process. The explorer switches between actors
at the transactions that write, and at the calls of the store that publish or remove.
"""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.app import compose
from registry.app.asgi import create_app
from registry.config import load
from registry.metadata import tables
from registry.metadata.engine import migrate
from registry.metadata.engine.transaction import CandidateKind, Transaction
from registry.metadata.gc import queue
from registry.services.gc.batch import GcReport
from storage.digest import Digest
from storage.memory import MemoryDriver
from tests.api.conftest import in_process
from tests.services.gc.conftest import Yard
from tests.services.gc.explorer import Schedules, put_gates, reach_gate, run_in_order
from tests.support.kit import image_manifest, index_manifest

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

BLOB = b"{}"
DIGEST = Digest.of(BLOB)
IMAGE = image_manifest(BLOB, [])
IMAGE_DIGEST = Digest.of(IMAGE)
INDEX = index_manifest([IMAGE])

FEWEST = 15
"""Minimum number of orders of a scenario. Fewer mean that the explorer misses steps."""

Scenario = Callable[[Yard], Awaitable[None]]


class BrokenPromiseError(AssertionError):
    """A client was told that content exists, relied on it in time, and the content was missing."""


CONTENT = [
    *(tables.tags, tables.manifest_edges, tables.manifest_bytes, tables.manifests),
    *(tables.repository_blobs, tables.uploads, tables.blobs, tables.repositories),
    *(tables.gc_queue, tables.pending_deletions),
]


async def empty(yard: Yard) -> None:
    """Delete all content. Opening another registry would take much longer."""

    def work(tx: Transaction) -> None:
        for table in CONTENT:
            tx.execute(sa.delete(table))

    await yard.opened.database.write(work, actor="test")
    memory_of(yard).objects.clear()


def memory_of(yard: Yard) -> MemoryDriver:
    driver = yard.opened.driver
    assert isinstance(driver, MemoryDriver)
    return driver


async def explore(yard: Yard, prepare: Scenario, *clients: Scenario) -> int:
    """Try every order of the clients and a collector, and return the number of orders.

    Raises BrokenPromiseError for the first order that loses acknowledged content.
    """
    schedules = Schedules()
    for schedule in schedules:
        await empty(yard)
        await prepare(yard)
        await yard.age()
        acts = [functools.partial(act, yard) for act in (*clients, collect)]
        try:
            await run_in_order(acts, schedule)
            await require_whole(yard)
        except AssertionError as error:
            raise BrokenPromiseError(f"{error} in the order {schedule.taken}") from error
    return schedules.count


async def collect(yard: Yard) -> None:
    tally = GcReport()
    while await yard.opened.registry.collector.collect(tally):
        pass
    await yard.opened.registry.deletions.sweep()


async def require_whole(yard: Yard) -> None:
    """Check that all tags have complete content, and that every stored object has an owner."""

    def look(tx: Transaction) -> tuple[set[str], ...]:
        def every(column: sa.Column[Any]) -> set[str]:
            return {str(value) for value in tx.execute(sa.select(column)).scalars()}

        return (
            every(tables.tags.c.name),
            every(tables.manifests.c.digest),
            every(tables.repository_blobs.c.digest) & every(tables.blobs.c.digest),
            every(tables.blobs.c.key),
            every(tables.pending_deletions.c.key),
        )

    tags, manifests, linked, keys, pending = await yard.opened.database.read(look)
    if tags:
        assert str(IMAGE_DIGEST) in manifests, "the image is gone"
        assert str(DIGEST) in linked, "the blob is gone"
    stored = set(memory_of(yard).objects)
    assert keys <= stored <= keys | pending


# --- content before the run


async def abandoned_blob(yard: Yard) -> None:
    await yard.push_blob("app", BLOB)


async def abandoned_elsewhere(yard: Yard) -> None:
    await yard.push_blob("other", BLOB)


async def untagged_image(yard: Yard) -> None:
    await yard.push_blob("app", BLOB)
    assert (await yard.put_manifest("app", str(IMAGE_DIGEST), IMAGE)).status_code == 201


# --- actions of clients


async def look(yard: Yard, path: str) -> bool:
    return (await yard.http.head(f"/v2/app/{path}")).status_code == 200


async def look_and_push(yard: Yard) -> None:
    """Push as Docker does: existing content is not sent again."""
    if not await look(yard, f"blobs/{DIGEST}"):
        await yard.push_blob("app", BLOB)
    answer = await yard.put_manifest("app", "image", IMAGE)
    assert answer.status_code == 201, answer.text


async def upload_and_push(yard: Yard) -> None:
    await yard.push_blob("app", BLOB)
    answer = await yard.put_manifest("app", "image", IMAGE)
    assert answer.status_code == 201, answer.text


async def mount_and_push(yard: Yard) -> None:
    mount = {"mount": str(DIGEST), "from": "other"}
    answer = await yard.http.post("/v2/app/blobs/uploads/", params=mount)
    if answer.status_code == 202:
        location, digest = answer.headers["Location"], {"digest": str(DIGEST)}
        answer = await yard.http.put(location, params=digest, content=BLOB)
    assert answer.status_code == 201, answer.text
    answer = await yard.put_manifest("app", "image", IMAGE)
    assert answer.status_code == 201, answer.text


async def look_and_push_index(yard: Yard) -> None:
    """Push an index of an image after a HEAD reported that the image exists."""
    if await look(yard, f"manifests/{IMAGE_DIGEST}"):
        answer = await yard.put_manifest("app", "index", INDEX)
        assert answer.status_code == 201, answer.text


async def tag_and_delete(yard: Yard) -> None:
    """Set and delete a tag. The image stays for another grace period."""
    if (await yard.put_manifest("app", "image", IMAGE)).status_code == 201:
        assert (await yard.http.delete("/v2/app/manifests/image")).status_code == 202
        await reach_gate()
        image = await yard.http.get(f"/v2/app/manifests/{IMAGE_DIGEST}")
        assert image.status_code == 200, "the image went at once"


SCENARIOS: dict[str, tuple[Scenario, Scenario]] = {
    "look, upload, push": (abandoned_blob, look_and_push),
    "upload, push": (abandoned_blob, upload_and_push),
    "mount, push": (abandoned_elsewhere, mount_and_push),
    "look, push an index": (untagged_image, look_and_push_index),
    "tag, delete the tag": (untagged_image, tag_and_delete),
}


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    """Yield a registry without jobs and without a manifest cache."""
    migrate.upgrade(f"sqlite:///{tmp_path}/moorage.db")
    settings = load(
        config=None,
        data=tmp_path,
        overrides={
            "storage.driver": "memory",
            "jobs.in_serve": "false",
            "gc.untagged": "delete",
            "limits.manifest_cache_size": "0B",
        },
        environ={},
    )
    put_gates(monkeypatch)
    opened = compose(settings)
    async with in_process(create_app(settings, opened)) as http:
        yield Yard(http, opened)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_push_beside_the_collector(yard: Yard, name: str) -> None:
    prepare, client = SCENARIOS[name]
    assert await explore(yard, prepare, client) > FEWEST


# --- negative controls: each removes one safeguard


async def require_found(yard: Yard, name: str) -> None:
    with pytest.raises(BrokenPromiseError):
        await explore(yard, *SCENARIOS[name])


async def test_a_look_that_promises_nothing_is_found(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "touch", lambda *_: True)
    await require_found(yard, "look, upload, push")


async def test_acting_on_what_was_queued_anew_is_found(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock, the collector must check again that the grace period is over."""
    real = queue.evaluate

    def judge(
        tx: Transaction, kind: CandidateKind, repository: int, digests: Any, until: int
    ) -> Any:
        return real(tx, kind, repository, digests, until + 10**15)

    monkeypatch.setattr(queue, "evaluate", judge)
    await require_found(yard, "tag, delete the tag")
