"""Tests of repositories: created once, listed in byte order, deleted with their last content."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from registry.metadata import tables
from registry.metadata.content import blobs, manifests, repositories, uploads
from registry.metadata.content.repositories import NameRange, RepositoryCounts, RepositoryRow
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Change, Transaction
from registry.oci.names import RepositoryName
from tests.metadata.rows import (
    NAME,
    add,
    add_blob,
    digest,
    events,
    find,
    held_open,
    image,
    race,
    read_pages,
    rows,
    upload,
    void,
)
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio

# In byte order: `-` < `.` < `/` < digits < `_` < letters. The order of a locale ignores marks.
NAMES = ["a", "a-b", "a.b", "a/b", "a/b-c", "a/b.c", "a/b/c", "a0", "a_b", "a__b", "aa", "b"]


async def test_is_created_once(database: Database) -> None:
    first = await database.write(lambda tx: repositories.ensure(tx, NAME), actor="ann")
    again = await database.write(lambda tx: repositories.ensure(tx, NAME), actor="bob")
    assert first == again
    (event,) = await events(database)
    assert (event.kind, event.actor, event.repository) == (Change.REPOSITORY_CREATE, "ann", NAME)
    assert event.generation == first.generation


async def test_is_born_once_however_many_bear_it(replicas: list[Database]) -> None:
    for number in range(5):
        name = RepositoryName(f"born/{number}")
        born = await race(replicas, [lambda tx, name=name: repositories.ensure(tx, name)] * 16)  # type: ignore[misc]
        assert len(set(born)) == 1
        assert len(await rows(replicas[0], tables.repositories, name=name)) == 1
        (event,) = await rows(replicas[0], tables.change_feed, repository=name)
        assert event.generation == born[0].generation


async def test_locked_creators_take_turns(replicas: list[Database]) -> None:
    """If each held the row first and locked it later, two creators would deadlock."""
    await replicas[0].write(lambda tx: repositories.ensure(tx, NAME), actor="ann")
    won: list[int] = []

    def create(number: int) -> Callable[[Transaction], bool]:
        def work(tx: Transaction) -> bool:
            repository = repositories.ensure(tx, NAME, lock=True)
            if blobs.list_linked(tx, repository, [digest("first")]):
                return False
            add_blob(tx, repository, "first")
            won.append(number)
            return True

        return work

    async with asyncio.timeout(5):
        outcomes = await race(replicas, [create(number) for number in range(16)])
    assert sorted(outcomes) == [False] * 15 + [True]
    assert len(won) == 1


async def test_a_new_one_of_an_old_name_is_another(database: Database) -> None:
    def bear_and_remove(tx: Transaction) -> RepositoryRow:
        row = repositories.ensure(tx, NAME)
        repositories.remove_if_empty(tx, row)
        return row

    lives = [await database.write(bear_and_remove, actor="ann") for _ in range(2)]
    assert lives[0].generation != lives[1].generation
    assert lives[0].id < lives[1].id


async def test_names_are_listed_in_byte_order(database: Database) -> None:
    def work(tx: Transaction) -> None:
        for name in reversed(NAMES):
            repositories.ensure(tx, RepositoryName.parse(name))

    await database.write(work, actor="ann")
    listed = await read_pages(database, lambda tx, last: repositories.list_names(tx, 5, last or ""))
    assert listed == sorted(NAMES)
    after = await database.read(lambda tx: repositories.list_names(tx, 2, "a/a-name-that-is-not"))
    assert after == ["a/b", "a/b-c"]


REGIONS = [
    NameRange(start, exact=exact, direct_children_only=flat)
    for start, exact, flat in [
        ("", False, False),
        ("", False, True),
        ("a/", False, False),
        ("a/", False, True),
        ("a/b/", False, False),
        ("none/", False, False),
        ("a", True, False),
        ("a/b/c", True, False),
        ("none", True, False),
    ]
]


def is_in(region: NameRange, name: str) -> bool:
    if region.exact:
        return name == region.start
    return name.startswith(region.start) and not (
        region.direct_children_only and "/" in name.removeprefix(region.start)
    )


async def test_names_of_regions_are_those_in_any_of_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "CHUNK", 1)
    await database.write(
        lambda tx: void([repositories.ensure(tx, RepositoryName(n)) for n in NAMES]), actor="ann"
    )

    def work(tx: Transaction, regions: tuple[NameRange, ...]) -> None:
        meant = sorted(name for name in NAMES if any(is_in(r, name) for r in regions))
        for n, last in itertools.product((1, 2, 20), ("", "a", "a/b/", "a0", "b")):
            expected = [name for name in meant if name > last][:n]
            assert repositories.list_names(tx, n, last, reversed(regions)) == expected

    for regions in [*itertools.combinations(REGIONS, 2), tuple(REGIONS[1:])]:
        await database.read(lambda tx, some=regions: work(tx, some))  # type: ignore[misc]
    assert await database.read(lambda tx: repositories.list_names(tx, 5, "", [])) == []


def count_steps(tx: Transaction, regions: list[NameRange]) -> int:
    """Return how many instructions of SQLite's virtual machine the listing needs."""
    steps = itertools.count()
    connection: Any = tx.connection.connection.dbapi_connection
    connection.set_progress_handler(lambda: void(next(steps)), 1)
    assert repositories.list_names(tx, 9, "", regions) == ["team/app"]
    connection.set_progress_handler(None, 1)
    return next(steps)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_lies_outside_of_the_regions_costs_nothing(database: Database) -> None:
    """Otherwise the response time reveals how much is hidden. Counted rather than timed."""
    regions = [
        NameRange("team/"),
        NameRange("team/", direct_children_only=True),
        NameRange("team/app", exact=True),
    ]
    counted = {}
    for number, hidden in enumerate((3, 300)):
        names = [
            f"{prefix}{number}/{i}" for prefix in ("a", "team", "tea", "z") for i in range(hidden)
        ]
        names += ["team/app"]

        def work(tx: Transaction, names: list[str] = names) -> None:
            for name in names:
                repositories.ensure(tx, RepositoryName(name))

        await database.write(work, actor="ann")
        counted[hidden] = [
            await database.read(lambda tx, r=region: count_steps(tx, [r]))  # type: ignore[misc]
            for region in regions
        ]
    assert counted[3] == counted[300]
    # The count does rise when more rows are read.
    await database.write(
        lambda tx: void(repositories.ensure(tx, RepositoryName("team/x/y"))), actor="ann"
    )
    again = await database.read(
        lambda tx: count_steps(tx, [NameRange("team/", direct_children_only=True)])
    )
    assert again > counted[3][1]


async def test_counts_each_content_once(database: Database) -> None:
    one, two = image("1", ["shared", "own"]), image("2", ["shared"])

    def work(tx: Transaction) -> RepositoryCounts:
        add(tx, one, "a", "b")
        add(tx, two, "c")
        add(tx, one, name=RepositoryName("elsewhere"))
        return repositories.count(tx, find(tx))

    counts = await database.write(work, actor="ann")
    blob_bytes = len("config 1") + len("config 2") + len("shared") + len("own")
    assert counts == RepositoryCounts(3, 2, 4, blob_bytes + len(one.raw) + len(two.raw))


async def test_is_removed_with_its_last_content(database: Database) -> None:
    def work(tx: Transaction) -> list[bool]:
        row = add(tx, image("1", ["layer"]))
        repository = find(tx)
        there = []
        for step in (
            lambda: manifests.delete(tx, repository, row),
            lambda: blobs.unlink(tx, repository, {digest("config 1"): None}),
            lambda: blobs.unlink(tx, repository, {digest("layer"): None}),
        ):
            repositories.remove_if_empty(tx, repository)
            there.append(repositories.find(tx, NAME) is not None)
            step()
        repositories.remove_if_empty(tx, repository)
        return [*there, repositories.find(tx, NAME) is not None]

    assert await database.write(work, actor="ann") == [True, True, True, False]
    assert (await events(database))[-1].kind == Change.REPOSITORY_DELETE


async def test_sessions_begun_in_it_outlive_its_emptiness(database: Database) -> None:
    def work(tx: Transaction) -> None:
        repository = repositories.ensure(tx, NAME)
        uploads.insert(tx, upload("in it", repository_generation=repository.generation))
        uploads.insert(tx, upload("elsewhere", repository_generation="another"))
        repositories.remove_if_empty(tx, repository)

    await database.write(work, actor="ann")
    found = {row.id: row.repository_generation for row in await rows(database, tables.uploads)}
    assert found == {"in it": None, "elsewhere": "another"}


async def test_delete_takes_all_of_it_and_nothing_else(database: Database) -> None:
    other = RepositoryName("other")

    def work(tx: Transaction) -> None:
        for name in (NAME, other):
            add(tx, image("1"), "latest", name=name)
            uploads.insert(tx, upload(str(name), repository_generation=find(tx, name).generation))

    await database.write(work, actor="ann")
    contents = [
        tables.repositories,
        tables.repository_blobs,
        tables.manifests,
        tables.manifest_bytes,
        tables.manifest_edges,
        tables.tags,
    ]
    before = [len(await rows(database, table)) for table in contents]
    await database.write(lambda tx: repositories.delete(tx, find(tx)), actor="ann")
    assert [2 * len(await rows(database, table)) for table in contents] == before
    assert await database.read(lambda tx: repositories.list_names(tx, 9, "")) == ["other"]
    assert len(await rows(database, tables.blobs)) == 2
    assert len(await rows(database, tables.uploads)) == 2


def remove(tx: Transaction) -> None:
    repository = repositories.find(tx, NAME, lock=True)
    if repository is not None:
        repositories.remove_if_empty(tx, repository)


async def test_a_removal_waits_for_a_put_and_then_stays_away(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        await database.write(lambda tx: repositories.ensure(tx, NAME), actor="ann")
        with held_open(url) as tx:
            row = repositories.ensure(tx, NAME)
            removal = asyncio.ensure_future(database.write(remove, actor="bob"))
            await asyncio.sleep(0.3)
            assert not removal.done()
            add_blob(tx, row, "late")
        await removal
        kinds = [event.kind for event in await events(database)]
        assert kinds == [Change.REPOSITORY_CREATE, Change.BLOB_LINK]
        await database.close()


async def test_a_put_waits_for_a_removal_and_bears_another(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        old = await database.write(lambda tx: repositories.ensure(tx, NAME), actor="ann")
        with held_open(url) as tx:
            remove(tx)
            put = asyncio.ensure_future(
                database.write(lambda tx: repositories.ensure(tx, NAME), actor="bob")
            )
            await asyncio.sleep(0.3)
            assert not put.done()
        new = await put
        assert new.generation != old.generation
        assert [(event.kind, event.generation) for event in await events(database)] == [
            (Change.REPOSITORY_CREATE, old.generation),
            (Change.REPOSITORY_DELETE, old.generation),
            (Change.REPOSITORY_CREATE, new.generation),
        ]
        await database.close()


async def test_puts_and_removals_at_once_leave_no_half_repository(
    replicas: list[Database],
) -> None:
    def put(number: int) -> Callable[[Transaction], None]:
        return lambda tx: void(add_blob(tx, repositories.ensure(tx, NAME), f"blob {number}"))

    def empty(tx: Transaction) -> None:
        repository = repositories.find(tx, NAME, lock=True)
        if repository is not None:
            for row in tx.execute(tables.repository_blobs.select()).all():
                blobs.unlink(tx, repository, {row.digest: None})
            repositories.remove_if_empty(tx, repository)

    for _ in range(4):
        await race(replicas, [put(number) if number % 2 else empty for number in range(32)])
    alive: set[str] = set()
    for event in await events(replicas[0]):
        if event.kind == Change.REPOSITORY_CREATE:
            assert not alive
            alive.add(event.generation)
        assert alive == {event.generation}
        if event.kind == Change.REPOSITORY_DELETE:
            alive.clear()
    assert {row.generation for row in await rows(replicas[0], tables.repositories)} == alive
