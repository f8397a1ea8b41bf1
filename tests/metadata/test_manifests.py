"""Tests of manifests: consistent rows, bytes and edges, also under concurrent changes."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import ANONYMOUS
from registry.errors import (
    BlobInUseError,
    BlobUnknownError,
    DatabaseUnavailableError,
    ManifestContentMissingError,
    ManifestUnknownError,
    PreconditionFailedError,
)
from registry.metadata import tables
from registry.metadata.content import blobs, manifest_edges, manifests, referrers, repositories
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.manifests import Manifest
from registry.oci.media_types import OCI_INDEX, OCI_MANIFEST
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content.blobs import Blobs
from registry.services.content.manifest_cache import ManifestCache
from registry.services.content.manifests import Manifests, TagCondition
from registry.services.content.settings import ContentSettings
from registry.services.gc.settings import GcSettings
from storage.digest import Digest
from storage.memory import MemoryDriver
from storage.stores import Stores
from tests.metadata.rows import (
    NAME,
    add,
    add_blob,
    digest,
    digest_of,
    events,
    find,
    image,
    index,
    race,
    rows,
    void,
)
from tests.support.kit import descriptor

pytestmark = pytest.mark.anyio

OTHER = RepositoryName("other")
Serve = Callable[[Database], Manifests]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that makes the manifests service of one process."""
    with contextlib.ExitStack() as stack:

        def made(database: Database) -> Manifests:
            watch = stack.enter_context(contextlib.closing(RevisionWatch(database)))
            return Manifests(
                database, ContentSettings(), watch, ManifestCache(1 << 20), GcSettings()
            )

        yield made


async def test_is_found_by_tag_and_by_digest_in_its_repository(database: Database) -> None:
    manifest = image("1")

    def work(tx: Transaction) -> list[ManifestRow | None]:
        row = add(tx, manifest, "latest")
        repositories.ensure(tx, OTHER)
        return [
            row,
            manifests.find(tx, NAME, Tag("latest")),
            manifests.find(tx, NAME, digest_of(manifest)),
            manifests.find(tx, NAME, Tag("none")),
            manifests.find(tx, OTHER, digest_of(manifest)),
            manifests.find(tx, RepositoryName("none"), Tag("latest")),
        ]

    row, *found = await database.write(work, actor="ann")
    assert row is not None
    assert row.digest == digest_of(manifest)
    assert (row.media_type, row.size) == (OCI_MANIFEST, len(manifest.raw))
    assert found == [row, row, None, None, None]
    for reference in (Tag("latest"), row.digest):
        whole = await database.read(
            lambda tx, it=reference: manifests.find_with_bytes(tx, NAME, it)  # type: ignore[misc]
        )
        assert whole is not None
        assert (whole.row, whole.raw) == (row, manifest.raw)
    assert await database.read(lambda tx: manifests.find_with_bytes(tx, OTHER, row.digest)) is None


async def test_pushed_again_keeps_its_row_and_takes_its_new_edges(database: Database) -> None:
    manifest = image("1", ["a", "b"])

    def work(tx: Transaction) -> list[object]:
        first = add(tx, manifest)
        assert len(manifest_edges.list_of(tx, first.id)) == 3
        manifests.put(tx, find(tx), first.digest, manifest, [Edge("layer", digest("a"), blob=True)])
        again = manifests.find(tx, NAME, first.digest)
        assert again is not None
        return [first, again, manifest_edges.list_of(tx, again.id)]

    first, again, edges = await database.write(work, actor="ann")
    assert first == again
    assert edges == [Edge("layer", digest("a"), blob=True)]
    assert len(await rows(database, tables.manifest_bytes)) == 1


async def test_one_row_however_many_push_it(replicas: list[Database]) -> None:
    manifest = image("1", ["a", "b"])
    await race(replicas, [lambda tx: add(tx, manifest, "latest")] * 16)
    (row,) = await rows(replicas[0], tables.manifests)
    assert len(await rows(replicas[0], tables.manifest_edges, manifest_id=row.id)) == 3
    kinds = [event.kind for event in await events(replicas[0])]
    assert kinds.count(Change.MANIFEST_PUT) == 16
    assert kinds.count(Change.BLOB_LINK) == 3
    assert kinds.count(Change.REPOSITORY_CREATE) == 1


async def test_a_child_that_comes_late_is_tied_to_who_named_it(database: Database) -> None:
    child = image("1")
    parent = index([child])

    def work(tx: Transaction) -> list[list[Edge]]:
        repository = repositories.ensure(tx, NAME)
        edges = [Edge("entry", digest_of(child))]
        manifests.put(tx, repository, digest_of(parent), parent, edges)
        row = manifests.find(tx, NAME, digest_of(parent))
        assert row is not None
        before = manifest_edges.list_of(tx, row.id)
        add(tx, child)
        assert manifests.list_parents(tx, repository, digest_of(child)) == [row]
        after = manifest_edges.list_of(tx, row.id)
        manifest_edges.detach_child(tx, repository, row.id, digest_of(child))
        assert manifests.list_parents(tx, repository, digest_of(child)) == []
        return [before, after, manifest_edges.list_of(tx, row.id)]

    untied, tied, loosened = await database.write(work, actor="ann")
    assert untied == loosened == [Edge("entry", digest_of(child))]
    assert tied == [Edge("entry", digest_of(child), child=True)]


async def test_the_database_keeps_what_is_named(database: Database) -> None:
    """The database refuses the deletion even if the code above does not check."""
    child, tagged = image("1"), image("2")

    def prepare(tx: Transaction) -> None:
        add(tx, child)
        add(tx, index([child]))
        add(tx, tagged, "latest")

    await database.write(prepare, actor="ann")

    def delete(wanted: Digest) -> Callable[[Transaction], None]:
        def work(tx: Transaction) -> None:
            row = manifests.find(tx, NAME, wanted)
            assert row is not None
            manifests.delete(tx, find(tx), row)

        return work

    def unlink(seed: str) -> Callable[[Transaction], None]:
        return lambda tx: void(blobs.unlink(tx, find(tx), {digest(seed): None}))

    refused = [*map(delete, map(digest_of, (child, tagged))), *map(unlink, ("layer", "config 1"))]
    for work in refused:
        with pytest.raises(DatabaseUnavailableError):
            await database.write(work, actor="ann")


async def test_delete_takes_row_bytes_and_edges(database: Database) -> None:
    def work(tx: Transaction) -> None:
        row = add(tx, image("1"))
        add(tx, image("2"))
        manifests.delete(tx, find(tx), row)

    await database.write(work, actor="ann")
    assert [row.digest for row in await rows(database, tables.manifests)] == [digest_of(image("2"))]
    assert len(await rows(database, tables.manifest_bytes)) == 1
    assert len(await rows(database, tables.manifest_edges)) == 2


async def test_digests_and_referrers_are_paged_in_byte_order(database: Database) -> None:
    subject = image("subject")
    named = descriptor(subject.raw, OCI_MANIFEST)
    signatures = [
        image(str(n), subject=named, artifactType=f"type/{n % 2}", annotations={"n": str(n)})
        for n in range(6)
    ]
    attached = index([], subject=named)
    everything = [subject, attached, *signatures]

    def prepare(tx: Transaction) -> None:
        for manifest in everything:
            add(tx, manifest)
        add(tx, image("elsewhere", subject=named), name=OTHER)

    def list_some(
        tx: Transaction, artifact_type: str | None, last: str = "", n: int = 99
    ) -> list[ManifestRow]:
        return referrers.list_page(
            tx, find(tx), digest_of(subject), artifact_type=artifact_type, last=last, n=n
        )

    await database.write(prepare, actor="ann")
    listed = sorted(map(digest_of, everything))
    found = await database.read(lambda tx: list_some(tx, None))
    assert [r.digest for r in found] == sorted(map(digest_of, [attached, *signatures]))
    by_digest = {r.digest: r for r in found}
    first = by_digest[digest_of(signatures[0])]
    assert (first.media_type, first.size) == (OCI_MANIFEST, len(signatures[0].raw))
    assert first.artifact_type == "type/0"
    annotations = await database.read(lambda tx: referrers.read_annotations(tx, found))
    assert sorted(each["n"] for each in annotations.values() if each) == list("012345")
    assert annotations[first.id] == {"n": "0"}
    last = by_digest[digest_of(attached)]
    assert (last.media_type, last.artifact_type) == (OCI_INDEX, None)
    odd = await database.read(lambda tx: list_some(tx, "type/1"))
    assert [r.digest for r in odd] == sorted(map(digest_of, signatures[1::2]))
    rest = await database.read(lambda tx: list_some(tx, None, last=str(listed[2]), n=2))
    assert [r.digest for r in rest] == [d for d in listed[3:] if d in by_digest][:2]


async def test_deleting_what_shares_layers_never_deadlocks(
    replicas: list[Database], serve: Serve
) -> None:
    """The cause is touches of shared rows in random order (GitLab #732)."""
    names = [RepositoryName(f"repository/{number}") for number in range(4)]
    layers = [f"layer {number}" for number in range(10)]
    chance = random.Random(3)
    pushes = [
        (names[n % 4], image(str(n), chance.sample(layers, 4), annotations={"n": str(n)}))
        for n in range(100)
    ]
    services = [serve(database) for database in replicas]

    def prepare(tx: Transaction) -> None:
        for number, (name, manifest) in enumerate(pushes):
            add(tx, manifest, f"t{number}", name=name)

    await replicas[0].write(prepare, actor="ann", timeout_s=LONG_TIMEOUT_S)
    chance.shuffle(pushes)

    async def deleter(number: int) -> None:
        for name, manifest in pushes[number::8]:
            await services[number % 2].delete(name, digest_of(manifest), ANONYMOUS)

    await asyncio.gather(*(deleter(number) for number in range(8)))
    for table in (tables.manifests, tables.manifest_edges, tables.manifest_bytes, tables.tags):
        assert await rows(replicas[0], table) == []
    kinds = [event.kind for event in await events(replicas[0])]
    assert kinds.count(Change.MANIFEST_DELETE) == kinds.count(Change.TAG_DELETE) == 100


async def test_of_creators_of_a_tag_exactly_one_wins(
    replicas: list[Database], serve: Serve
) -> None:
    """The comparison and the write are atomic with respect to other pushes (R16)."""
    services = [serve(database) for database in replicas]

    def prepare(tx: Transaction) -> None:
        repository = repositories.ensure(tx, NAME)
        for seed in ("config 0", "layer"):
            add_blob(tx, repository, seed)

    async def create(number: int, tag: str) -> bool:
        raw = image("0", annotations={"n": str(number)}).raw
        absent = TagCondition(other=("*",))
        try:
            await services[number % 2].put(
                NAME, raw, None, ANONYMOUS, set_tags=[Tag(tag)], condition=absent
            )
        except PreconditionFailedError:
            return False
        return True

    await replicas[0].write(prepare, actor="ann")
    async with asyncio.timeout(20):
        for tag in ("a", "b", "c"):
            won = await asyncio.gather(*(create(number, tag) for number in range(16)))
            assert won.count(True) == 1
            (event,) = await rows(replicas[0], tables.change_feed, kind=Change.TAG_SET, tag=tag)
            winner = image("0", annotations={"n": str(won.index(True))})
            assert event.digest == digest_of(winner)


async def test_no_edge_dangles_when_blobs_leave_while_manifests_come(
    replicas: list[Database], serve: Serve
) -> None:
    stores = Stores(MemoryDriver())
    pushers = [serve(database) for database in replicas]
    takers = [Blobs(database, stores, GcSettings()) for database in replicas]
    refused = {"push": 0, "unlink": 0}

    def prepare(tx: Transaction) -> None:
        repository = repositories.ensure(tx, NAME)
        for seed in ("config 0", "layer 0", "kept"):
            add_blob(tx, repository, seed)

    async def push(number: int) -> None:
        raw = image("0", ["layer 0"], annotations={"n": str(number)}).raw
        try:
            await pushers[number % 2].put(NAME, raw, None, ANONYMOUS)
        except ManifestContentMissingError:
            refused["push"] += 1

    async def unlink(number: int) -> None:
        try:
            await takers[number % 2].unlink(NAME, digest("layer 0"), ANONYMOUS)
        except (BlobInUseError, BlobUnknownError):
            refused["unlink"] += 1

    await replicas[0].write(prepare, actor="ann")
    for attempt in range(12):
        if attempt % 2:
            await asyncio.gather(*map(push, range(4)), *map(unlink, range(4)))
        else:
            await asyncio.gather(*map(unlink, range(4)), *map(push, range(4)))
        for row in await rows(replicas[0], tables.manifests):
            await pushers[0].delete(NAME, row.digest, ANONYMOUS)
        await replicas[0].write(prepare, actor="ann")
    assert refused["unlink"] >= 12
    assert await dangling(replicas[0]) == 0


async def dangling(database: Database) -> int:
    """Return the number of edges to a blob or child that does not exist."""
    e, b, m = tables.manifest_edges.c, tables.repository_blobs.c, tables.manifests.c
    link = sa.select(b.digest).where(b.repository_id == e.repository_id, b.digest == e.blob_digest)
    child = sa.select(m.id).where(m.repository_id == e.repository_id, m.digest == e.child_digest)
    query = sa.select(sa.func.count()).where(
        sa.or_(
            sa.and_(e.blob_digest.is_not(None), ~link.exists()),
            sa.and_(e.child_digest.is_not(None), ~child.exists()),
        )
    )
    return await database.read(lambda tx: int(tx.execute(query).scalar_one()))


async def test_tags_lead_somewhere_while_manifests_are_moved_and_deleted(  # noqa: C901
    replicas: list[Database], serve: Serve
) -> None:
    """Manifests that are never deleted are always found, with four movers and two deleters (R5)."""
    kept, prey = [image(f"kept {n}") for n in range(3)], [image(f"prey {n}") for n in range(3)]
    services = [serve(database) for database in replicas]
    done = asyncio.Event()
    seen: set[Digest] = set()

    def prepare(tx: Transaction) -> None:
        for manifest in kept:
            add(tx, manifest, "kept", "shared")
        for manifest in prey:
            add(tx, manifest, "prey", "shared")

    async def push(number: int, manifest: Manifest, tag: str) -> None:
        await services[number].put(NAME, manifest.raw, None, ANONYMOUS, set_tags=[Tag(tag)])

    async def move(number: int) -> None:
        for step in range(6):
            await push(number % 2, kept[(number + step) % 3], "kept")
            await push(number % 2, prey[(number + step) % 3], "prey")
            await push(number % 2, (kept + prey)[(number + step) % 6], "shared")

    async def delete(number: int) -> None:
        for step in range(12):
            shared, hunted = Tag("shared"), digest_of(prey[step % 3])
            with contextlib.suppress(ManifestUnknownError):
                await services[number].delete(NAME, hunted if step % 2 else shared, ANONYMOUS)

    async def watch(number: int) -> None:
        while not done.is_set():
            found = await services[number % 2].get(NAME, Tag("kept"), time.monotonic())
            assert Digest.of(found.raw) == found.row.digest
            seen.add(found.row.digest)

    await replicas[0].write(prepare, actor="ann")
    watchers = [asyncio.ensure_future(watch(number)) for number in range(4)]
    await asyncio.gather(*map(move, range(4)), *map(delete, range(2)))
    done.set()
    await asyncio.gather(*watchers)
    assert seen
    assert seen <= set(map(digest_of, kept))
    assert await dangling(replicas[0]) == 0
