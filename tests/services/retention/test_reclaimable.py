"""Reclaimable bytes of random repositories, compared with an oracle that deletes content."""

import random
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.content import blobs, repositories
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.protection import holds
from registry.oci.manifests import Manifest
from registry.oci.names import RepositoryName
from registry.services.gc.reclaimable import measure
from storage.digest import Digest
from tests.metadata.rows import NAME, add, digest_of, find, image, index

pytestmark = pytest.mark.anyio

ROUNDS = 20


class UndoneError(Exception):
    """Error that rolls back the content of one round."""


def build(tx: Transaction, chance: random.Random) -> list[Digest]:
    """Create a repository of images that share layers, indexes of them, and referrers."""
    made: list[Manifest] = []
    for number in range(chance.randint(1, 8)):
        layers = chance.sample(["a", "bb", "ccc", "dddd", "eeeee"], chance.randint(1, 3))
        more = {}
        if made and chance.random() < 0.3:
            subject = chance.choice([*made, image("not here")])
            described = {"digest": str(digest_of(subject)), "size": 1, "mediaType": "x"}
            more = {"subject": described}
        made.append(image(str(number), layers, **more))
        add(tx, made[-1])
        if chance.random() < 0.3:
            made.append(index(chance.sample(made, chance.randint(1, len(made)))))
            add(tx, made[-1])
    for layer in chance.sample(["a", "bb"], chance.randint(0, 2)):
        other = repositories.ensure(tx, RepositoryName("other"))
        if blobs.find_anywhere(tx, Digest.of(layer.encode())) is not None:
            blobs.link(tx, other, Digest.of(layer.encode()))
    return list(dict.fromkeys(map(digest_of, made)))


def expect(tx: Transaction, going: list[Digest], staying: list[Digest]) -> int:
    """Delete everything that is not retained, and return how many bytes that frees."""
    manifests = {
        digest: (row_id, size, subject)
        for row_id, digest, size, subject in tx.execute(
            sa.select(*(tables.manifests.c[n] for n in ("id", "digest", "size", "subject")))
        )
    }
    edges = list(
        tx.execute(
            sa.select(
                *(
                    tables.manifest_edges.c[n]
                    for n in ("manifest_id", "child_digest", "blob_digest")
                )
            )
        )
    )

    named_by = {(e[0], e[1]) for e in edges}

    def holders(digest: Digest, among: set[Digest]) -> list[Digest]:
        named = [d for d in among if (manifests[d][0], digest) in named_by]
        subject = manifests[digest][2]
        return [*named, *([subject] if subject in among else [])]

    left = set(manifests)
    loose = {d for d in left if d not in staying and not holders(d, left)}
    kept = loose - set(going)
    gone: set[Digest] = set()
    while more := {
        d
        for d in left
        if d not in staying
        and d not in kept
        and not holders(d, left)
        and (d in going or holders(d, gone))
    }:
        left -= more
        gone |= more
    ids = {manifests[d][0] for d in left}
    free = {e[2] for e in edges if e[0] not in ids and e[2]}
    free -= {e[2] for e in edges if e[0] in ids}
    elsewhere = sa.select(tables.repository_blobs.c.digest).where(
        tables.repository_blobs.c.repository_id != find(tx).id
    )
    free -= set(tx.execute(elsewhere).scalars())
    sizes = dict(tx.execute(sa.select(tables.blobs.c.digest, tables.blobs.c.size)).all())
    return sum([*(manifests[d][1] for d in gone), *(int(sizes[blob]) for blob in free)])


async def test_what_comes_free(tmp_path: Path, anyio_backend: str) -> None:
    del anyio_backend
    url = f"sqlite:///{tmp_path}/moorage.db"
    migrate.upgrade(url)
    database = Database(url)
    freed = 0

    for number in range(ROUNDS):

        def work(tx: Transaction, number: int = number) -> None:
            nonlocal freed
            chance = random.Random(number)
            made = build(tx, chance)
            chance.shuffle(made)
            cut = chance.randint(0, len(made))
            going, staying = made[:cut][:3], made[cut:]
            held = chance.sample(made, chance.randint(0, 1))
            for digest in held:
                holds.insert(tx, find(tx, NAME).id, digest, "evidence", None)
            found = measure(tx, find(tx, NAME), going, staying)
            assert len(found) == len(going)
            assert sum(found) == expect(tx, going, [*staying, *held]), number
            freed += sum(found)
            raise UndoneError

        with pytest.raises(UndoneError):
            await database.write(work, actor="ann")
    await database.close()
    assert freed > 0
