"""The number of rows that a deletion and its collection write depends on the change only.

With MOORAGE_SOAK_GC=1 the registry has a million blobs, and the test prints times and memory.
"""

import os
import resource
import sys
import time

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from tests.services.gc.conftest import Yard

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

BLOBS = 1_000_000 if os.environ.get("MOORAGE_SOAK_GC") else 10_000
LAYERS = 4
CHUNK = 10_000

SOME = 60
"""Row limit: an image of three blobs with tag, edges, links, candidates, changes, deletions."""


def fill(tx: Transaction, first: int) -> None:
    """Insert images of LAYERS blobs each, in repositories of a hundred images."""
    images = CHUNK // LAYERS
    digests = [Digest.of(f"blob {first + n}".encode()) for n in range(CHUNK)]
    repositories = sorted({1000 + (first // LAYERS + n) // 100 for n in range(images)})
    common = {"created_at": 1, "state": "live", "store": "local"}
    tx.connection.execute(
        sa.insert(tables.repositories),
        [{"id": r, "name": f"r/{r}", "generation": str(r), "created_at": 1} for r in repositories],
    )
    tx.connection.execute(
        sa.insert(tables.blobs),
        [{"digest": d, "size": 1, "key": str(d), **common} for d in digests],
    )
    places = [1000 + (first // LAYERS + n // LAYERS) // 100 for n in range(CHUNK)]
    tx.connection.execute(
        sa.insert(tables.repository_blobs),
        [
            {"repository_id": r, "digest": d, "linked_at": 1}
            for r, d in zip(places, digests, strict=True)
        ],
    )
    numbers = range(1000 + first // LAYERS, 1000 + first // LAYERS + images)
    tx.connection.execute(
        sa.insert(tables.manifests),
        [
            {
                "id": n,
                "repository_id": places[(n - numbers[0]) * LAYERS],
                "digest": Digest.of(f"manifest {n}".encode()),
                "media_type": "application/vnd.oci.image.manifest.v1+json",
                "size": 1,
                "pushed_at": 1,
            }
            for n in numbers
        ],
    )
    tx.connection.execute(
        sa.insert(tables.manifest_edges),
        [
            {
                "manifest_id": numbers[n // LAYERS],
                "kind": "layer",
                "digest": d,
                "blob_digest": d,
                "repository_id": places[n],
            }
            for n, d in enumerate(digests)
        ],
    )


def count_written(tx: Transaction) -> int:
    """Return the number of rows that the writer's connection has written since it was opened."""
    return int(tx.execute(sa.select(sa.func.total_changes())).scalar_one())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_deletion_and_its_collection_write_tens_of_rows(yard: Yard) -> None:
    database = yard.opened.database
    for first in range(0, BLOBS, CHUNK):
        await database.write(lambda tx, first=first: fill(tx, first), actor="test")  # type: ignore[misc]
    digest, _ = await yard.push_image("r/1000", "latest")
    before = await database.write(count_written, actor="test")
    assert before > BLOBS * 3
    begun = time.monotonic()
    assert (await yard.http.delete(f"/v2/r/1000/manifests/{digest}")).status_code == 202
    deleted = time.monotonic()
    await yard.age()
    tally = await yard.collect()
    collected = time.monotonic()
    assert tally.blobs == 3
    written = await database.write(count_written, actor="test") - before
    assert 10 < written < SOME
    begun_idle = time.monotonic()
    assert (await yard.collect()).examined == 0
    idle = time.monotonic() - begun_idle
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if BLOBS > CHUNK:
        sys.stderr.write(
            f"{BLOBS} blobs: {written} rows, deleted in {deleted - begun:.3f} s, collected in "
            f"{collected - deleted:.3f} s, nothing to do in {idle:.3f} s, {memory} MiB at most\n"
        )
