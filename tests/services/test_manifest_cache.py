"""The manifest cache never returns stale data and never exceeds its size limit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import sqlalchemy as sa

from registry.auth.policy.principals import ANONYMOUS
from registry.errors import ManifestUnknownError
from registry.metadata.content import repositories
from registry.metadata.content.manifests import ManifestRow, StoredManifest
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.content.manifest_cache import OVERHEAD, ManifestCache
from registry.services.content.manifests import Manifests
from registry.services.content.settings import ContentSettings
from registry.services.gc.settings import GcSettings
from storage.digest import Digest
from tests.metadata.rows import NAME, add, digest_of, find, image

pytestmark = pytest.mark.anyio

ROOM = 1 << 20
LATEST = Tag("latest")
READERS = 4


def found(text: str) -> StoredManifest:
    raw = text.encode()
    return StoredManifest(ManifestRow(1, Digest.of(raw), "type", len(raw), None), raw)


def name(number: int) -> RepositoryName:
    return RepositoryName(f"app/{number}")


def test_a_tag_and_a_digest_lead_to_what_was_kept() -> None:
    cache, it = ManifestCache(ROOM), found("one")
    assert cache.entries_of(NAME).find(LATEST) is None
    cache.put(NAME, cache.entries_of(NAME), LATEST, it)
    for reference in (LATEST, it.row.digest):
        kept = cache.entries_of(NAME).find(reference)
        assert kept == it
        assert kept is not None
        assert kept.raw is it.raw
    assert cache.entries_of(NAME).find(Tag("other")) is None
    assert cache.entries_of(name(1)).find(LATEST) is None


@pytest.mark.parametrize("changed", [frozenset({NAME}), None], ids=["named", "unknown"])
def test_what_was_read_before_a_change_is_not_kept_after_it(
    changed: frozenset[RepositoryName] | None,
) -> None:
    cache = ManifestCache(ROOM)
    cache.put(NAME, cache.entries_of(NAME), Tag("kept"), found("one"))
    before = cache.entries_of(NAME)
    cache.forget(changed)
    cache.put(NAME, before, LATEST, found("two"))
    assert cache.entries_of(NAME).find(Tag("kept")) is None
    assert cache.entries_of(NAME).find(LATEST) is None


def test_a_change_elsewhere_takes_nothing_away() -> None:
    cache = ManifestCache(ROOM)
    cache.put(NAME, cache.entries_of(NAME), LATEST, found("one"))
    cache.forget(frozenset({name(1)}))
    assert cache.entries_of(NAME).find(LATEST) == found("one")


def test_it_keeps_to_its_room_and_drops_what_was_not_asked_for() -> None:
    cache = ManifestCache(40 * OVERHEAD)
    for number in range(200):
        cache.entries_of(NAME).find(LATEST)
        cache.put(NAME, cache.entries_of(NAME), LATEST, found("asked for always"))
        cache.put(name(number), cache.entries_of(name(number)), LATEST, found(f"{number:0500}"))
        held = [shelf.size for shelf in cache._repositories.values()]
        assert sum(held) == cache._size <= 40 * OVERHEAD
    assert cache.entries_of(NAME).find(LATEST)
    assert cache.entries_of(name(199)).find(LATEST)
    assert cache.entries_of(name(0)).find(LATEST) is None


def test_one_that_is_too_large_or_was_asked_for_in_vain_takes_no_room() -> None:
    cache = ManifestCache(40 * OVERHEAD)
    shelf = cache.entries_of(NAME)
    cache.put(NAME, shelf, LATEST, found("x" * 3 * OVERHEAD))
    cache.drop_if_empty(NAME, shelf)
    assert not cache._repositories
    cache.drop_if_empty(NAME, shelf)
    cache.put(NAME, cache.entries_of(NAME), LATEST, found("one"))
    cache.drop_if_empty(NAME, cache.entries_of(NAME))
    assert cache.entries_of(NAME).find(LATEST)


class Process:
    """The manifest cache of one process, with a record of its database reads."""

    def __init__(self, url: str, room: int = ROOM) -> None:
        self.database = Database(url)
        self.watch = RevisionWatch(self.database)
        self.cache = ManifestCache(room)
        self.manifests = Manifests(
            self.database, ContentSettings(), self.watch, self.cache, GcSettings()
        )
        self.asked: list[str] = []
        sa.event.listen(self.database._reader, "before_cursor_execute", self._note)

    def _note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.asked.append(statement)

    async def get(self, reference: Tag | Digest = LATEST) -> StoredManifest:
        return await self.manifests.get(NAME, reference, time.monotonic())

    async def close(self) -> None:
        self.watch.close()
        await self.database.close()


@pytest.fixture
async def pair(database_url: str, anyio_backend: str) -> AsyncIterator[tuple[Process, Process]]:
    """Yield two processes that share a database."""
    del anyio_backend
    here, there = Process(database_url), Process(database_url)
    yield here, there
    await here.close()
    await there.close()


async def test_one_that_is_known_costs_no_query_on_a_thread(pair: tuple[Process, Process]) -> None:
    here, there = pair
    await there.database.write(lambda tx: add(tx, image("1"), "latest"), actor="ann")
    first = await here.get()
    assert first.raw == image("1").raw
    here.asked.clear()
    assert await here.get() == first
    assert (await here.get(first.row.digest)).raw is first.raw
    assert here.asked == []
    blind = Process(here.database.url.render_as_string(hide_password=False), room=0)
    await blind.get()
    blind.asked.clear()
    await blind.get()
    await blind.close()
    assert blind.asked


async def test_what_another_process_did_is_seen_at_once(pair: tuple[Process, Process]) -> None:
    here, there = pair
    first, second = image("1"), image("2")
    await there.database.write(lambda tx: (add(tx, first, "latest"), add(tx, second)), actor="ann")
    assert (await here.get()).raw == first.raw
    await there.manifests.put(NAME, second.raw, None, ANONYMOUS, set_tags=[LATEST])
    assert (await here.get()).raw == second.raw
    await there.manifests.delete(NAME, LATEST, ANONYMOUS)
    with pytest.raises(ManifestUnknownError):
        await here.get()
    assert (await here.get(digest_of(second))).raw == second.raw
    await there.manifests.delete(NAME, digest_of(second), ANONYMOUS)
    with pytest.raises(ManifestUnknownError):
        await here.get(digest_of(second))
    assert (await here.get(digest_of(first))).raw == first.raw
    await there.database.write(lambda tx: repositories.delete(tx, find(tx)), actor="ann")
    with pytest.raises(ManifestUnknownError):
        await here.get(digest_of(first))


async def is_stale(reader: Process, writer: Process, changes: int) -> bool:
    """Return whether a read returned a state that had ended before the read began."""
    pushes = [image(str(number)) for number in range(3)]
    numbers = {digest_of(push): number for number, push in enumerate(pushes)}

    def prepare(tx: Transaction) -> None:
        for push in pushes:
            add(tx, push)

    await writer.database.write(prepare, actor="ann")
    done, stale = asyncio.Event(), False
    # The tag points to 0, 1, 2, 0 and so on, or None while it moves.
    at: int | None = None
    moves = reads = 0

    async def read() -> None:
        nonlocal stale, reads
        while not done.is_set():
            before, expected = moves, at
            with contextlib.suppress(ManifestUnknownError):
                told = numbers[(await reader.get()).row.digest]
                stale = stale or (moves == before and expected not in {None, told})
            reads += 1
            await asyncio.sleep(0)

    async def move() -> None:
        nonlocal at, moves
        for number in range(changes):
            at, moves = None, moves + 1
            push = pushes[number % 3]
            await writer.manifests.put(NAME, push.raw, None, ANONYMOUS, set_tags=[LATEST])
            at, moves = number % 3, moves + 1
            enough = reads + 2 * READERS
            while reads < enough:
                await asyncio.sleep(0)
        done.set()

    await asyncio.gather(move(), *(read() for _ in range(READERS)))
    return stale


async def test_no_reader_is_told_what_was_over_before_it_asked(
    pair: tuple[Process, Process],
) -> None:
    assert not await is_stale(*pair, changes=24)


async def test_a_cache_that_forgets_nothing_is_found_out(pair: tuple[Process, Process]) -> None:
    pair[0].watch._forget.clear()
    assert await is_stale(*pair, changes=8)


async def test_a_read_that_a_change_overtakes_is_not_kept(
    pair: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of the old manifest ends only after every process knows of the new one."""
    here, there = pair
    first, second = image("1"), image("2")
    await there.database.write(lambda tx: (add(tx, first, "latest"), add(tx, second)), actor="ann")
    await here.watch.read()
    read, go_on = asyncio.Event(), asyncio.Event()
    ordinary = here.database.read

    async def held(work: Callable[[Transaction], Any], **options: Any) -> Any:
        row = await ordinary(work, **options)
        if isinstance(row, StoredManifest):
            read.set()
            await go_on.wait()
        return row

    monkeypatch.setattr(here.database, "read", held)
    late = asyncio.ensure_future(here.get())
    await read.wait()
    await there.manifests.put(NAME, second.raw, None, ANONYMOUS, set_tags=[LATEST])
    await here.watch.read()
    go_on.set()
    assert (await late).raw == first.raw
    monkeypatch.undo()
    assert (await here.get()).raw == second.raw
