"""Tests of usage reports, and of the space that a deletion is predicted to free."""

import asyncio
import dataclasses
import threading

import pytest
import sqlalchemy as sa

from registry.errors import ManifestUnknownError, RepositoryUnknownError
from registry.metadata import tables
from registry.metadata.content import blobs, manifests, repositories, tags, usage
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds
from registry.oci.manifests import Manifest
from registry.oci.media_types import OCI_MANIFEST
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content.usage import Reclaimable, Usage, UsageShare
from storage.digest import Digest
from tests.metadata.rows import add, digest, digest_of, find, image, index, void
from tests.support.kit import descriptor

pytestmark = pytest.mark.anyio

APP, COPY, OTHER = (RepositoryName(name) for name in ("team/app", "team/copy", "single"))

BASE = "base, that several have"
ONE, TWO = "layer of one", "the layer of two"

FIRST = image("1", [BASE, ONE])
SECOND = image("2", [BASE, TWO])
ALL = index([FIRST, SECOND])
CONFIG = len(b"config 1")
SIGNED = image("s", ["signature"], subject=descriptor(FIRST.raw, OCI_MANIFEST))


def prepare(tx: Transaction) -> None:
    add(tx, FIRST, "one")
    add(tx, SECOND)
    add(tx, ALL, "all")
    add(tx, SIGNED)
    add(tx, FIRST, "one", name=COPY)
    add(tx, image("3", [BASE]), "three", name=OTHER)
    blobs.put(tx, dataclasses.replace(loose(tx), digest=digest("loose"), size=1000, key="loose"))


def loose(tx: Transaction) -> blobs.BlobRow:
    row = blobs.find_anywhere(tx, digest(BASE))
    assert row is not None
    return row


@pytest.fixture
async def filled(database: Database) -> Database:
    await database.write(prepare, actor="ann", timeout_s=LONG_TIMEOUT_S)
    return database


def sizes(*layers: str) -> int:
    return sum(map(len, layers))


async def test_the_report_tells_shared_from_exclusive(filled: Database) -> None:
    report = await Usage(filled).report(100)
    app = sizes(BASE, ONE, TWO, "signature") + 3 * CONFIG
    own = sizes(TWO, "signature") + 2 * CONFIG
    copy = sizes(BASE, ONE) + CONFIG
    other = sizes(BASE) + CONFIG
    assert report.repositories == [
        UsageShare("team/app", app, own),
        UsageShare("team/copy", copy, 0),
        UsageShare("single", other, CONFIG),
    ]
    assert report.namespaces == [
        UsageShare("team", app, app - sizes(BASE)),
        UsageShare("", other, CONFIG),
    ]
    signed = sizes("signature") + CONFIG
    assert report.tags == [
        UsageShare("team/app:all", app, sizes(TWO) + CONFIG),
        UsageShare("team/app:one", copy + signed, 0),
        UsageShare("team/copy:one", copy, 0),
        UsageShare("single:three", other, CONFIG),
    ]
    stored = report.stored
    assert (stored.bytes, stored.unlinked_bytes) == (app + CONFIG + 1000, 1000)
    assert (stored.blobs, stored.manifests) == (9, 6)
    assert stored.manifest_bytes == 2 * len(FIRST.raw) + sum(
        len(m.raw) for m in (SECOND, ALL, SIGNED, image("3", [BASE]))
    )


async def test_the_largest_come_first_and_no_more_than_asked(filled: Database) -> None:
    report = await Usage(filled).report(1)
    names = [[share.name for share in shares] for shares in (report.repositories, report.tags)]
    assert names == [["team/app"], ["team/app:all"]]
    assert [share.name for share in report.namespaces] == ["team"]


def gone(*manifests_: Manifest, layers: tuple[str, ...] = (), configs: int = 0) -> Reclaimable:
    raw = sum(len(manifest.raw) for manifest in manifests_)
    size = sizes(*layers) + configs * CONFIG
    return Reclaimable(len(manifests_), raw, len(layers) + configs, size)


CASES: list[tuple[list[tuple[RepositoryName, str]], Reclaimable]] = [
    # The index retains it.
    ([(APP, "one")], gone()),
    ([(APP, "all")], gone(ALL, SECOND, layers=(TWO,), configs=1)),
    # The copy retains its blobs. The signed manifest is deleted, and its signature with it.
    (
        [(APP, "all"), (APP, "one")],
        gone(ALL, FIRST, SECOND, SIGNED, layers=(TWO, "signature"), configs=2),
    ),
    (
        [(APP, "all"), (APP, "one"), (COPY, "one")],
        gone(ALL, FIRST, FIRST, SECOND, SIGNED, layers=(ONE, TWO, "signature"), configs=3),
    ),
    ([(COPY, "one")], gone(FIRST)),
    ([(OTHER, "three")], gone(image("3", [BASE]), configs=1)),
    (
        [(APP, "all"), (APP, "one"), (COPY, "one"), (OTHER, "three")],
        gone(
            ALL,
            FIRST,
            FIRST,
            SECOND,
            SIGNED,
            image("3", [BASE]),
            layers=(BASE, ONE, TWO, "signature"),
            configs=4,
        ),
    ),
]


async def test_what_deleting_tags_would_free(filled: Database) -> None:
    for deleted, freed in CASES:
        wanted = [(name, Tag(tag)) for name, tag in deleted]
        assert await Usage(filled).measure_freed(wanted) == freed, deleted


async def test_a_second_tag_and_an_untagged_image_hold_what_they_share(filled: Database) -> None:
    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, OTHER)
        assert repository is not None
        tags.put(tx, repository, Tag("latest"), digest_of(image("3", [BASE])))
        add(tx, image("4", [BASE, TWO]), name=OTHER)

    await filled.write(work, actor="ann")
    freed = Usage(filled).measure_freed
    assert await freed([(OTHER, Tag("three"))]) == gone()
    both = [(OTHER, Tag("three")), (OTHER, Tag("latest"))]
    assert await freed(both) == gone(image("3", [BASE]), configs=1)
    assert (await freed([(APP, Tag("all"))])).bytes == CONFIG  # others need the layer


async def test_what_is_held_does_not_go(filled: Database) -> None:
    async def hold(digest: Digest, life: float | None) -> int:
        def work(tx: Transaction) -> int:
            return holds.insert(tx, find(tx, APP).id, digest, "evidence", life).id

        return await filled.write(work, actor="ann")

    freed = Usage(filled).measure_freed
    first = await hold(digest_of(SECOND), None)
    await hold(digest_of(ALL), 0)  # the hold has expired
    assert await freed([(APP, Tag("all"))]) == gone(ALL)
    both = [(APP, Tag("all")), (APP, Tag("one"))]
    assert (await freed(both)).manifests == 3
    await filled.write(lambda tx: holds.delete(tx, first), actor="ann")
    assert await freed([(APP, Tag("all"))]) == gone(ALL, SECOND, layers=(TWO,), configs=1)
    # A held manifest retains its children, and a held subject its signature.
    await hold(digest_of(ALL), None)
    assert await freed(both) == gone()


async def test_what_is_not_there_is_said(filled: Database) -> None:
    freed = Usage(filled).measure_freed
    with pytest.raises(ManifestUnknownError, match="team/app:none"):
        await freed([(APP, Tag("one")), (APP, Tag("none"))])
    with pytest.raises(RepositoryUnknownError):
        await freed([(RepositoryName("nowhere"), Tag("one"))])


async def test_what_is_foretold_is_what_goes(filled: Database) -> None:
    """Delete, remove everything unreferenced by hand, and compare with the prediction."""
    wanted = [(APP, Tag("all")), (APP, Tag("one"))]
    foretold = await Usage(filled).measure_freed(wanted)
    before = (await Usage(filled).report(1)).stored

    def work(tx: Transaction) -> None:
        app = repositories.find(tx, APP, lock=True)
        assert app is not None
        for _, tag in wanted:
            tags.delete(tx, app, tag)
        for manifest in (ALL, SIGNED, FIRST, SECOND):
            row = manifests.find(tx, APP, digest_of(manifest))
            assert row is not None
            manifests.delete(tx, app, row)
        repositories.delete(tx, app)
        link = tables.repository_blobs.c.digest
        held = sa.select(link).where(link == tables.blobs.c.digest).exists()
        tx.execute(sa.delete(tables.blobs).where(~held, tables.blobs.c.key != "loose"))

    await filled.write(work, actor="ann")
    after = (await Usage(filled).report(1)).stored
    assert (before.bytes - after.bytes, before.blobs - after.blobs) == (
        foretold.bytes,
        foretold.blobs,
    )
    assert before.manifest_bytes - after.manifest_bytes == foretold.manifest_bytes


async def test_a_long_read_sees_one_moment(database: Database) -> None:
    """Also on PostgreSQL, where short reads are not snapshots."""
    begun, done = threading.Event(), threading.Event()

    def look(tx: Transaction) -> tuple[int, int]:
        first = usage.measure(tx).manifests
        begun.set()
        assert done.wait(20)
        return first, usage.measure(tx).manifests

    looking = asyncio.ensure_future(database.read(look, timeout_s=LONG_TIMEOUT_S))
    assert await asyncio.to_thread(begun.wait, 20)
    await database.write(lambda tx: void(add(tx, FIRST, "one")), actor="ann")
    done.set()
    assert await looking == (0, 0)
    assert await database.read(lambda tx: usage.measure(tx).manifests) == 1
