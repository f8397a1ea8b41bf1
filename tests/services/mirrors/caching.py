"""A mirror whose content a test puts into the cache, as pulls do."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.app import Runtime
from registry.auth.audit_log import Actor
from registry.auth.policy.principals import Principal
from registry.errors import BlobUnknownError
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.mirrors import mirror_tags
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from registry.services.mirrors.mirror import Mirror
from registry.services.mirrors.options import MirrorOptions
from storage.digest import Digest
from tests.services.mirrors.pulling import read
from tests.services.mirrors.sources import ScriptedSource
from tests.support.kit import image_manifest, media_type_of

ACTOR = Actor("tester")
APP = RepositoryName("hub/team/app")
HOUR = 3600.0


def make_bytes(text: str, size: int) -> bytes:
    """Return bytes that differ for each text."""
    return hashlib.shake_128(text.encode()).digest(size)


@dataclass(frozen=True)
class Image:
    """An image with its blobs."""

    raw: bytes
    blobs: tuple[bytes, ...]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.raw)

    @classmethod
    def make(cls, text: str, size: int = 100_000, shared: Sequence[bytes] = ()) -> "Image":
        config, layers = text.encode(), [make_bytes(text, size), *shared]
        return cls(image_manifest(config, layers), (config, *layers))


@dataclass(frozen=True)
class Cache:
    """A registry with a mirror."""

    opened: Runtime
    mirror: Mirror

    @classmethod
    async def create(cls, opened: Runtime, **options: Any) -> "Cache":
        mirror = Mirror(
            "hub", RepositoryName("hub"), "https://hub.example", MirrorOptions(**options)
        )
        return cls(opened, await opened.registry.mirrors.add(mirror, ACTOR))

    async def store(
        self, raw: bytes, *tags: str, name: RepositoryName = APP, age: float = HOUR
    ) -> Digest:
        """Store a manifest that was last pulled `age` seconds ago."""
        digest = Digest.of(raw)
        await self.opened.registry.manifests.put(
            name,
            raw,
            media_type_of(raw),
            Principal("mirror:hub"),
            set_tags=[Tag(tag) for tag in tags],
            sparse=True,
        )

        def confirm(tx: Transaction) -> None:
            for tag in tags:
                mirror_tags.put(tx, name, Tag(tag), digest)

        await self.opened.database.write(confirm, actor="test")
        await self.age(digest, age)
        return digest

    async def store_image(
        self, image: Image, *tags: str, name: RepositoryName = APP, age: float = HOUR
    ) -> Digest:
        """Store an image with its blobs."""
        await self.store(image.raw, *tags, name=name)
        for blob in image.blobs:
            reader = await self.opened.registry.fills.open(
                name, Digest.of(blob), ScriptedSource(content=blob)
            )
            if reader is not None:
                await read(reader)
        await self.age(image.digest, age)
        return image.digest

    async def age(self, digest: Digest, seconds: float) -> None:
        """Set the time of the last use of a manifest and its blobs."""
        m, p, link = tables.manifests.c, tables.pull_times.c, tables.repository_blobs.c
        ids = sa.select(m.id).where(m.digest == digest)
        named = sa.select(tables.manifest_edges.c.digest).where(
            tables.manifest_edges.c.manifest_id.in_(ids)
        )

        def work(tx: Transaction) -> None:
            then = tx.now - int(seconds * 1_000_000)
            tx.execute(sa.update(tables.manifests).where(m.digest == digest).values(pushed_at=then))
            tx.execute(
                sa.update(tables.pull_times).where(p.manifest_id.in_(ids)).values(pulled_at=then)
            )
            tx.execute(
                sa.update(tables.repository_blobs)
                .where(link.digest.in_(named))
                .values(linked_at=then)
            )

        await self.opened.database.write(work, actor="test")

    async def list_manifests(self) -> set[Digest]:
        """Return the manifests of all repositories."""
        query = sa.select(tables.manifests.c.digest)
        return set(await self.opened.database.read(lambda tx: list(tx.execute(query).scalars())))

    async def has_blobs(self, image: Image, name: RepositoryName = APP) -> list[bool]:
        """Return for each blob of the image whether the repository has it."""
        found = []
        for blob in image.blobs:
            try:
                await self.opened.registry.blobs.get(name, Digest.of(blob))
            except BlobUnknownError:
                found.append(False)
            else:
                found.append(True)
        return found

    async def evict(self) -> int:
        """Run the job until it is done, as if the last measurement was long ago."""
        query = sa.update(tables.mirror_usage).values(measured_at=0)

        def forget(tx: Transaction) -> None:
            tx.execute(query)

        await self.opened.database.write(forget, actor="test")
        assert await self.opened.registry.eviction.is_due()
        total = 0
        while done := await self.opened.registry.eviction.run():
            total += done
        assert not await self.opened.registry.eviction.is_due()
        return total

    async def collect(self) -> None:
        """Collect what is due, and delete the bytes of the collected blobs."""
        while await self.opened.registry.collector.run():
            pass
        while await self.opened.registry.deletions.sweep():
            pass
