"""Helpers of the tests of this folder."""

import sqlalchemy as sa

from registry.app import Runtime
from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from storage.digest import Digest
from storage.keys import blob_key
from tests.services.scrub.conftest import (
    NAME,
    write,
)

MIB = 1 << 20


def url(digest: Digest, name: str = NAME) -> str:
    return f"/v2/{name}/blobs/{digest}"


async def store(opened: Runtime, count: int) -> dict[Digest, tuple[str, bytes]]:
    """Store tiny blobs and their rows directly. Return their keys and bytes."""
    made = {}
    for n in range(count):
        data = b"%d" % n
        digest = Digest.of(data)
        made[digest] = blob_key(digest, f"{n:016x}"), data
    driver = opened.driver
    for key, data in made.values():
        await write(driver, key, data)
    rows = [
        {
            "digest": digest,
            "size": len(data),
            "store": driver.name,
            "key": key,
            "state": "live",
            "created_at": 0,
        }
        for digest, (key, data) in made.items()
    ]

    def work(tx: Transaction) -> None:
        tx.connection.execute(sa.insert(tables.blobs), rows)

    await opened.database.write(work, actor="ann")
    return made
