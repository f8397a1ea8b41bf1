"""Every state within the grace period can be restored after any changes, and no older state."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from registry import clock
from registry.auth.policy.principals import OPERATOR as PRINCIPAL
from registry.errors import ManifestUnknownError, RepositoryUnknownError
from registry.metadata import tables
from registry.oci.references import Tag
from storage.digest import Digest
from tests.services.gc.conftest import GRACE, Yard
from tests.services.history.conftest import NAME, OPERATOR, delete, pull
from tests.support.kit import index_manifest

pytestmark = pytest.mark.anyio

TAGS = [Tag("a"), Tag("b"), Tag("c")]
STEPS = 24


@dataclass
class Life:
    """Random changes to a repository."""

    yard: Yard
    chance: random.Random
    known: list[Digest] = field(default_factory=lambda: [Digest.of(b"")])

    async def step(self) -> None:
        usual: list[Callable[[], Awaitable[None]]] = [
            self.push,
            self.push,
            self.push_index,
            self.drop_tag,
            self.drop_manifest,
        ]
        seldom = [self.drop_blob, self.drop_repository, self.wait]
        await self.chance.choice([*usual, *usual, *seldom])()

    def seed(self) -> str:
        return str(self.chance.randrange(6))

    def tag(self) -> str:
        return str(self.chance.choice(TAGS))

    async def push(self) -> None:
        digest, _ = await self.yard.push_image("app", self.tag(), self.seed())
        self.known.append(digest)

    async def push_index(self) -> None:
        children = [await self.yard.push_image("app", "", self.seed()) for _ in range(2)]
        raw = index_manifest([raw for _, raw in children])
        answer = await self.yard.put_manifest("app", self.tag(), raw)
        assert answer.status_code == 201, answer.text
        self.known += [Digest.of(raw), *(digest for digest, _ in children)]

    async def drop_tag(self) -> None:
        await delete(self.yard, "app", self.tag())

    async def drop_manifest(self) -> None:
        await delete(self.yard, "app", self.chance.choice(self.known))

    async def drop_blob(self) -> None:
        layer = Digest.of(f"layer one {self.seed()}".encode())
        await self.yard.http.delete(f"/v2/app/blobs/{layer}")

    async def drop_repository(self) -> None:
        if await self.yard.list_rows(tables.repositories):
            await self.yard.opened.registry.repositories.delete(NAME, PRINCIPAL)

    async def wait(self) -> None:
        await self.yard.age(GRACE / (STEPS + 1))
        await self.yard.collect()

    async def read_tags(self) -> dict[str, str]:
        return {row.name: str(row.digest) for row in await self.yard.list_rows(tables.tags)}


@pytest.mark.parametrize("seed", range(3))
async def test_a_tag_comes_back_whole_as_it_was_at_any_moment(sweeping: Yard, seed: int) -> None:
    life = Life(sweeping, random.Random(seed))
    moments = []
    for _ in range(STEPS):
        await life.step()
        moments.append((clock.now_us(), await life.read_tags()))
    life.chance.shuffle(moments)
    history = sweeping.opened.registry.history
    for moment, then in moments:
        for tag in TAGS:
            if str(tag) in then:
                await history.restore(NAME, tag, OPERATOR, at=moment)
                assert await pull(sweeping, "app", tag) == then[str(tag)]
            else:
                with pytest.raises((ManifestUnknownError, RepositoryUnknownError)):
                    await history.restore(NAME, tag, OPERATOR, at=moment)
    for tag in TAGS:
        await delete(sweeping, "app", tag)
    await sweeping.exhaust()
    assert await sweeping.list_rows(tables.removed_manifests) == []
    assert set((await sweeping.count_rows()).values()) == {0}
    assert sweeping.list_stored() == []
