"""The scrub reads manifests and tells the collector which ones are unreadable."""

from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import unreadable_manifests as rows
from registry.services.gc import manifest_scrub
from storage.digest import Digest
from tests.services.gc.conftest import Yard
from tests.services.scrub.conftest import scrub
from tests.support.kit import codes, index_manifest

pytestmark = pytest.mark.anyio

NAME = "team/app"

DAMAGES = {"damaged": b"{", "another": b'{"schemaVersion": 2}', "gone": None}


async def store(yard: Yard, digest: Digest, raw: bytes | None) -> None:
    """Replace the stored bytes of a manifest, bypassing the registry."""

    def work(tx: Transaction) -> None:
        kept = tables.manifest_bytes
        (number,) = tx.execute(
            sa.select(tables.manifests.c.id).where(tables.manifests.c.digest == digest)
        ).scalars()
        tx.execute(sa.delete(kept).where(kept.c.manifest_id == number))
        if raw is not None:
            tx.execute(sa.insert(kept).values(manifest_id=number, bytes=raw))

    await yard.opened.database.write(work, actor="test")


async def list_known(yard: Yard) -> dict[str, list[str]]:
    """Return the manifests that are known to be unreadable, with the tags that they break."""
    return {
        f"{each.repository}@{each.digest}": [f"{name}:{tag}" for name, tag in each.tags]
        for each in await yard.opened.registry.scrub.manifests.list_known(9)
    }


async def push_again(yard: Yard, digest: Digest, raw: bytes) -> None:
    assert (await yard.put_manifest(NAME, str(digest), raw)).status_code == 201
    assert (await yard.http.get(f"/v2/{NAME}/manifests/{digest}")).content == raw


async def delete(yard: Yard, digest: Digest, raw: bytes) -> None:
    del raw
    assert (await yard.http.delete(f"/v2/{NAME}/manifests/{digest}")).status_code == 202


async def put_back(yard: Yard, digest: Digest, raw: bytes) -> None:
    await store(yard, digest, raw)
    await scrub(yard.opened)


CURES: dict[str, Callable[[Yard, Digest, bytes], Awaitable[None]]] = {
    "pushed again": push_again,
    "deleted": delete,
    "put back": put_back,
}


@pytest.mark.parametrize("cure", CURES)
@pytest.mark.parametrize("how", DAMAGES)
async def test_nothing_of_its_repository_is_collected_until_it_can_be_read(
    yard: Yard, how: str, cure: str
) -> None:
    digest, image = await yard.push_image(NAME, "latest", "x")
    await yard.push_image("other", "latest", "y")
    lone = await yard.push_blob(NAME, b"lone")
    await yard.push_blob("other", b"lone")
    await store(yard, digest, DAMAGES[how])
    for reference in (digest, "latest"):
        answer = await yard.http.get(f"/v2/{NAME}/manifests/{reference}")
        assert (answer.status_code, codes(answer)) == (404, ["MANIFEST_UNKNOWN"])
        assert (await yard.http.head(f"/v2/{NAME}/manifests/{reference}")).status_code == 404
    await scrub(yard.opened)
    assert await list_known(yard) == {f"{NAME}@{digest}": [f"{NAME}:latest"]}
    explained = await yard.opened.registry.explainer.explain(lone)
    assert sorted((path[0].repository, path[0].kind) for path in explained.paths) == [
        ("other", "grace_period"),
        (NAME, "unreadable_manifest"),
    ]
    status = await yard.opened.registry.collector.get_status()
    assert [(str(name), found) for name, found in status.unreadable] == [(NAME, digest)]
    assert "moorage_manifests_unreadable 1.0" in (await yard.http.get("/metrics")).text
    await yard.exhaust()
    assert await yard.has_blob(NAME, lone)
    assert not await yard.has_blob("other", lone)

    await CURES[cure](yard, digest, image)
    assert await list_known(yard) == {}
    await scrub(yard.opened)
    assert await list_known(yard) == {}
    await yard.exhaust()
    assert not await yard.has_blob(NAME, lone)


async def test_the_tags_of_indexes_above_it_are_named(yard: Yard) -> None:
    digest, image = await yard.push_image(NAME, "", "x")
    await yard.put_manifest(NAME, "index", index_manifest([image]))
    await store(yard, digest, b"")
    await scrub(yard.opened)
    assert await list_known(yard) == {f"{NAME}@{digest}": [f"{NAME}:index"]}


async def test_few_bytes_are_read_at_once(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is limited by bytes. 16 manifests of 4 MiB once were one batch."""
    images = [await yard.push_image(NAME, f"v{n}", str(n)) for n in range(4)]
    most = 2 * len(images[0][1])
    found = await yard.opened.database.read(lambda tx: rows.list_stored(tx, 0, 16, most))
    assert [each.digest for each in found] == [digest for digest, _ in images[:2]]
    monkeypatch.setattr(manifest_scrub, "READ_BYTES", 1)
    await store(yard, images[3][0], b"{")
    await scrub(yard.opened)
    assert await list_known(yard) == {f"{NAME}@{images[3][0]}": [f"{NAME}:v3"]}


async def test_what_was_read_of_other_bytes_is_not_noted(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is read again while pushes are excluded."""
    digest, image = await yard.push_image(NAME, "latest")
    real = manifest_scrub.ManifestScrub._check_again

    async def check_again(reading: manifest_scrub.ManifestScrub, *which: object) -> None:
        await push_again(yard, digest, image)
        await real(reading, *which)  # type: ignore[arg-type]

    monkeypatch.setattr(manifest_scrub.ManifestScrub, "_check_again", check_again)
    await store(yard, digest, b"{")
    await scrub(yard.opened)
    assert await list_known(yard) == {}


async def test_the_place_among_manifests_survives_the_process(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_scrub, "PAGE_SIZE", 2)
    digests = [(await yard.push_image(NAME, f"v{n}", str(n)))[0] for n in range(5)]
    scrub = yard.opened.registry.scrub
    await scrub.begin(restart=False)
    with monkeypatch.context() as short:
        short.setattr("registry.services.maintenance.scrub.SLICE_S", 0.0)
        assert await scrub.run(0) == 2
    for digest in (digests[0], digests[-1]):
        await store(yard, digest, b"{")
    assert [await scrub.run(0) for _ in range(3)] == [3, 15, 0]
    assert list(await list_known(yard)) == [f"{NAME}@{digests[-1]}"]
