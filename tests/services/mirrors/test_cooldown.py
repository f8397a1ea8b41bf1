"""Cooldown: the choice of the digest with which a tag answers, and its history."""

import math

import pytest
import sqlalchemy as sa

from registry.app import Runtime
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_tag_history
from registry.metadata.mirrors.mirror_tag_history import MOST, SeenDigest
from registry.oci.references import Tag
from registry.services.mirrors.cooldown import Choice, choose
from registry.services.mirrors.mirror import Mirrored
from registry.services.mirrors.upstreams import Upstreams
from storage.digest import Digest
from tests.services.mirrors.caching import APP, HOUR, Cache, Image

pytestmark = pytest.mark.anyio

DAY = 24 * HOUR
TAG = Tag("v1")
A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))


def seen(*days: tuple[Digest, float]) -> list[SeenDigest]:
    return [SeenDigest(digest, int(age * DAY * 1_000_000)) for digest, age in days]


@pytest.mark.parametrize(
    ("history", "serve_new", "expected"),
    [
        ([], False, Choice(None)),
        ([(A, 3)], False, Choice(A, math.inf, A)),
        ([(A, 2)], False, Choice(None, DAY, A)),
        ([(A, 2)], True, Choice(A, math.inf, A)),
        ([(B, 1), (A, 4)], False, Choice(A, 2 * DAY, B)),
        ([(C, 1), (B, 2), (A, 4)], False, Choice(A, DAY, C)),
        ([(C, 1), (B, 3), (A, 4)], False, Choice(B, 2 * DAY, C)),
        ([(B, 1), (A, 2)], True, Choice(A, 2 * DAY, B)),
        ([(B, 1), (A, 2)], False, Choice(None, DAY, B)),
    ],
)
def test_the_newest_digest_that_is_old_enough_is_chosen(
    history: list[tuple[Digest, float]], *, serve_new: bool, expected: Choice
) -> None:
    assert choose(seen(*history), 3 * DAY, serve_new=serve_new) == expected


both_databases = pytest.mark.parametrize("place", ["sqlite-local", "postgres-s3"], indirect=True)


async def observe(opened: Runtime, digest: Digest, age: float = 0) -> list[Digest]:
    """Record a digest that was first seen `age` seconds ago, and return the history."""
    h = tables.mirror_tag_history.c

    def work(tx: Transaction) -> list[Digest]:
        mirror_tag_history.observe(tx, APP, TAG, digest)
        if age:
            then = tx.now - int(age * 1_000_000)
            query = sa.update(tables.mirror_tag_history).where(h.digest == digest)
            tx.execute(query.values(first_seen_at=then))
        return [each.digest for each in mirror_tag_history.list_of(tx, APP, TAG)]

    return await opened.database.write(work, actor="test")


@both_databases
async def test_a_digest_that_was_withdrawn_is_forgotten(opened: Runtime) -> None:
    await observe(opened, A, 9 * DAY)
    assert await observe(opened, B, 4 * DAY) == [B, A]
    assert await observe(opened, A) == [A]
    assert await observe(opened, B) == [B, A]
    found = await opened.database.read(lambda tx: mirror_tag_history.list_of(tx, APP, TAG))
    assert found[0].age < HOUR * 1_000_000  # its cooldown starts again


@both_databases
async def test_the_history_of_a_tag_is_limited(opened: Runtime) -> None:
    digests = [Digest.of(str(number).encode()) for number in range(MOST + 5)]
    for number, digest in enumerate(digests):
        await observe(opened, digest, (len(digests) - number) * DAY)
    assert await observe(opened, digests[-1]) == list(reversed(digests[5:]))


@both_databases
async def test_what_is_held_back_is_listed(opened: Runtime) -> None:
    cache = await Cache.create(opened, cooldown="3d")
    await observe(opened, A, 9 * DAY)
    await cache.store(Image.make("a").raw, "v1")
    await observe(opened, B, DAY)
    at = Mirrored(cache.mirror, APP, APP)
    held = await opened.registry.cooldowns.list_held(cache.mirror)
    assert [(each.tag, each.digest, each.answer) for each in held] == [
        ("v1", B, Image.make("a").digest)
    ]
    choice = await opened.registry.cooldowns.find(at, TAG)
    assert (choice.digest, choice.latest) == (A, B)
    assert choice.lasts_s == pytest.approx(2 * DAY, abs=60)


@both_databases
async def test_the_answer_of_a_tag_is_not_evicted_while_a_newer_digest_is_held_back(
    opened: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ping(*_: object) -> None:
        pass

    monkeypatch.setattr(Upstreams, "ping", ping)
    cache = await Cache.create(opened, cooldown="3d", max_size="1B")
    old, other = Image.make("old"), Image.make("other")
    await observe(opened, old.digest, 9 * DAY)
    await cache.store_image(old, "v1", age=9 * DAY)
    await cache.store_image(other, "v2", age=8 * DAY)
    await observe(opened, B, DAY)
    assert await cache.evict() == 1
    assert await cache.list_manifests() == {old.digest}
    await observe(opened, old.digest)
    assert await cache.evict() == 1
