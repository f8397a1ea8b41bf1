"""Eviction while clients pull, with a server, its upstream, and the job in another process."""

import asyncio
import random

import httpx
import pytest
import sqlalchemy as sa

from registry.app import open_runtime
from registry.config import load
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.maintenance.fsck import Report
from registry.services.mirrors import eviction
from storage.digest import Digest
from tests.scenarios.mirrors.conftest import PREFIX, Image, Place, push, push_index
from tests.support.kit import Kit, codes

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

IMAGES = 8
SIZE = 100_000
OWN = "own/app"


async def pull(http: httpx.AsyncClient, name: str, reference: str) -> None:
    """Pull an image, and check that every part of it is there."""
    base = f"/v2/{PREFIX}/{name}"
    found = await http.get(f"{base}/manifests/{reference}")
    assert found.status_code == 200, found.text
    document = found.json()
    for child in document.get("manifests", ()):
        await pull(http, name, child["digest"])
    for part in (document["config"], *document["layers"]) if "config" in document else ():
        blob = await http.get(f"{base}/blobs/{part['digest']}")
        assert blob.status_code == 200, blob.text
        assert str(Digest.of(blob.content)) == part["digest"]


async def test_pulls_during_an_eviction_are_complete(
    place: Place, source: Kit, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction, "RECENT_S", 0.0)
    monkeypatch.setattr(eviction, "MEASURE_EVERY_S", 0.0)
    name = "evicted/app"
    for number in range(IMAGES):
        parts = [Image.make(f"image {number} part {part}", SIZE) for part in range(2)]
        await push_index(source, name, f"v{number}", parts)
    pinned = Image.make("pinned", SIZE)
    await push(source, name, "pinned", pinned)
    await pull(http, name, "pinned")
    copied = f"{PREFIX}/{name}:pinned"
    place.moorage("tag", "copy", copied, OWN + ":1")
    place.moorage("tag", "copy", copied, f"{PREFIX}/{name}:mine")

    async def keep_pulling(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(12):
            await pull(http, name, f"v{chosen.randrange(IMAGES)}")

    settings = load(
        config=None,
        data=place.mirror.data,
        overrides={"storage.min_free_space": "0B"},
        environ={},
    )
    place.moorage("mirror", "set", PREFIX, "--max-size", "500KiB")
    evicted = 0
    async with open_runtime(settings) as opened:
        pulling = asyncio.gather(*(keep_pulling(seed) for seed in range(4)))
        while not pulling.done():
            evicted += await opened.registry.eviction.run()
            await asyncio.sleep(0.02)
        await pulling
        evicted += await opened.registry.eviction.run()
        assert evicted > IMAGES
        assert await opened.database.read(list_unresolved) == []
        kept = await opened.registry.manifests.get(RepositoryName(OWN), Tag("1"), 0.0)
        assert kept.raw == pinned.raw
        report = Report()
        await opened.registry.fsck.run(report, repair=False, grace=0)
        assert report.findings == []
    place.moorage("mirror", "set", PREFIX, "--max-size", "")
    left = place.moorage("tag", "list", f"{PREFIX}/{name}").split()
    assert {"mine", "pinned"} <= set(left)
    place.proxy.cut()
    place.proxy.refuse()
    for tag in set(left) - {"mine"}:  # which the upstream does not have
        await pull(http, name, tag)
    first = next(f"v{number}" for number in range(IMAGES) if f"v{number}" not in left)
    gone = await http.get(f"/v2/{PREFIX}/{name}/manifests/{first}")
    assert (gone.status_code, codes(gone)) == (503, ["UNAVAILABLE"])


def list_unresolved(tx: Transaction) -> list[sa.Row[tuple[int, str]]]:
    """Return what manifests refer to and is not there."""
    edge = tables.manifest_edges.c
    query = sa.select(edge.manifest_id, edge.kind).where(
        edge.blob_digest.is_(None), edge.child_digest.is_(None)
    )
    return list(tx.execute(query))


async def test_an_image_without_one_layer_is_404_without_the_upstream(
    place: Place, source: Kit, http: httpx.AsyncClient
) -> None:
    """So that podman asks its next registry: at a blob, it would give up."""
    name, image = "evicted/layer", Image.make("layer", SIZE)
    base = f"/v2/{PREFIX}/{name}"
    await push(source, name, "v1", image)
    await pull(http, name, "v1")
    assert "Evicted 1 images" in place.moorage("mirror", "evict", f"{PREFIX}/{name}:v1")
    assert (await http.get(f"{base}/manifests/v1")).status_code == 200
    assert (await http.get(f"{base}/blobs/{Digest.of(image.config)}")).status_code == 200
    place.mirror.stop()
    place.mirror.start()  # the mirror must not know that the upstream was reachable
    place.proxy.cut()
    place.proxy.refuse()
    found = await http.get(f"{base}/manifests/v1")
    assert (found.status_code, codes(found)) == (404, ["MANIFEST_UNKNOWN"])
