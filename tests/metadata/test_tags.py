"""Tests of tags: one digest each, moved one at a time, listed in byte order."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from registry.metadata import tables
from registry.metadata.content import manifests, tags
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest
from tests.metadata.rows import (
    NAME,
    add,
    digest,
    digest_of,
    find,
    image,
    index,
    race,
    read_pages,
    rows,
)

pytestmark = pytest.mark.anyio

# In byte order: `-` < `.` < digits < capitals < `_` < small letters.
TAGS = ["V1", "_v1", "v1", "v1-a", "v1.0", "v1_a", "v10", "v2", "Z", "a", "0", "latest", "LATEST"]
LATEST = Tag("latest")


async def test_points_at_one_manifest_at_a_time(database: Database) -> None:
    one, two = image("1"), image("2")

    def work(tx: Transaction) -> list[Digest | None]:
        add(tx, one)
        add(tx, two)
        add(tx, one, "latest", name=RepositoryName("other"))
        found = [tags.find(tx, find(tx), LATEST)]
        for manifest in (one, two):
            tags.put(tx, find(tx), LATEST, digest_of(manifest))
            found.append(tags.find(tx, find(tx), LATEST))
        return [*found, tags.find(tx, find(tx, RepositoryName("other")), LATEST)]

    found = await database.write(work, actor="ann")
    assert found == [None, digest_of(one), digest_of(two), digest_of(one)]


async def test_moving_is_told_with_what_it_was(database: Database) -> None:
    one, two = image("1"), image("2")

    def work(tx: Transaction) -> None:
        add(tx, one, "latest")
        add(tx, two, "latest")
        assert tags.delete(tx, find(tx), LATEST)
        assert not tags.delete(tx, find(tx), LATEST)

    await database.write(work, actor="ann")
    told = await rows(database, tables.change_feed, tag="latest")
    assert [(event.kind, event.digest, event.old_digest) for event in told] == [
        (Change.TAG_SET, digest_of(one), None),
        (Change.TAG_SET, digest_of(two), digest_of(one)),
        (Change.TAG_DELETE, None, digest_of(two)),
    ]


async def test_every_move_starts_where_the_one_before_ended(replicas: list[Database]) -> None:
    """The chain of old and new digests has no gap, even if pushes are concurrent."""
    images = [image(str(number)) for number in range(16)]

    def prepare(tx: Transaction) -> None:
        for manifest in images:
            add(tx, manifest)

    def move(number: int, tag: str) -> Callable[[Transaction], object]:
        return lambda tx: tags.put(tx, find(tx), Tag(tag), digest_of(images[number]))

    await replicas[0].write(prepare, actor="ann")
    for tag in ("born-1", "born-2", "born-3"):
        for _ in range(2):
            await race(replicas, [move(number, tag) for number in range(16)])
        told = await rows(replicas[0], tables.change_feed, kind=Change.TAG_SET, tag=tag)
        assert len(told) == 32
        assert told[0].old_digest is None
        assert [(a.digest, b.old_digest) for a, b in pairwise(told)] == [
            (a.digest, a.digest) for a in told[:-1]
        ]
        (row,) = await rows(replicas[0], tables.tags, name=tag)
        assert row.digest == told[-1].digest


async def test_all_tags_of_a_manifest_go_together(database: Database) -> None:
    def work(tx: Transaction) -> list[str]:
        add(tx, image("1"), "b", "a")
        add(tx, image("2"), "c")
        tags.delete_all_of(tx, find(tx), digest_of(image("1")))
        return tags.list_names(tx, find(tx), 9, "")

    assert await database.write(work, actor="ann") == ["c"]
    told = await rows(database, tables.change_feed, kind=Change.TAG_DELETE)
    assert [(event.tag, event.old_digest) for event in told] == [
        ("a", digest_of(image("1"))),
        ("b", digest_of(image("1"))),
    ]


async def test_names_are_paged_in_byte_order(database: Database) -> None:
    def prepare(tx: Transaction) -> None:
        add(tx, image("1"), *TAGS)
        add(tx, image("1"), "in-another-repository", name=RepositoryName("other"))

    await database.write(prepare, actor="ann")
    listed = await read_pages(
        database, lambda tx, last: tags.list_names(tx, find(tx), 4, last or "")
    )
    assert listed == sorted(TAGS)
    of_it = await database.read(lambda tx: tags.list_of(tx, find(tx), digest_of(image("1"))))
    assert of_it == sorted(TAGS)
    assert await database.read(lambda tx: tags.list_names(tx, find(tx), 2, "M")) == ["V1", "Z"]


async def test_leads_to_a_manifest_of_its_own_repository(database: Database) -> None:
    other = RepositoryName("other")

    def work(tx: Transaction) -> list[Digest | None]:
        add(tx, image("1"), "latest")
        add(tx, image("2"), "latest", name=other)
        found = [manifests.find(tx, name, LATEST) for name in (NAME, other)]
        found.append(manifests.find(tx, NAME, Tag("Latest")))
        return [row.digest if row else None for row in found]

    expected = [digest_of(image("1")), digest_of(image("2")), None]
    assert await database.write(work, actor="ann") == expected


async def test_what_needs_a_blob_is_found_through_indexes_of_indexes(database: Database) -> None:
    one, two, three = image("1", ["base", "1"]), image("2", ["base"]), image("3", ["other"])
    inner = index([one, three])
    outer = index([inner])
    other = RepositoryName("other/app")

    def work(tx: Transaction) -> None:
        add(tx, one, "one", "also-one")
        add(tx, two)  # has no tag
        add(tx, three, "three")
        add(tx, inner, "inner")
        add(tx, outer, "outer")
        add(tx, two, "two", name=other)
        add(tx, three, "three", name=other)

    await database.write(work, actor="ann")

    async def needing(seed: str, n: int = 99) -> list[str]:
        found = await database.read(lambda tx: tags.list_tags_needing_blob(tx, digest(seed), n))
        return [f"{name}:{tag}" for name, tag in found]

    here = [f"{NAME}:{tag}" for tag in ("also-one", "inner", "one", "outer")]
    assert await needing("base") == ["other/app:two", *here]
    assert await needing("base", 2) == ["other/app:two", here[0]]
    assert await needing("1") == here
    threes = [f"{NAME}:{tag}" for tag in ("inner", "outer", "three")]
    assert await needing("other") == ["other/app:three", *threes]
    assert await needing("config 2") == ["other/app:two"]
    assert await needing("nothing") == []
