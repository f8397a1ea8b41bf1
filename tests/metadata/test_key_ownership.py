"""Tests of the owner of a key, wherever the key moves."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from registry.metadata.content import blobs, key_ownership, uploads
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import pending_deletions
from storage.keys import new_multipart_key, staged_key
from tests.metadata.rows import STORE, blob, held_open, upload

pytestmark = pytest.mark.anyio

SESSION = str(uuid.uuid4())
PARTS = [new_multipart_key() for _ in range(3)]


async def list_unowned(database: Database, *keys: str) -> list[str]:
    return sorted(await database.read(lambda tx: key_ownership.list_unowned(tx, STORE, keys)))


async def test_each_kind_of_owner_counts(database: Database) -> None:
    staged, stray = staged_key(SESSION, 1), staged_key(str(uuid.uuid4()), 1)

    def work(tx: Transaction) -> None:
        blobs.put(tx, blob("a", "blobs/a.0"))
        blobs.put(tx, blob("p", PARTS[0]))
        pending_deletions.insert(tx, STORE, "blobs/b.0", "test")
        said = f'{{"tail":null,"key":"{PARTS[1]}"}}'
        uploads.insert(tx, upload(SESSION, key="blobs/c.0", resume_state=said))

    await database.write(work, actor="ann")
    owned = ["blobs/a.0", "blobs/b.0", "blobs/c.0", PARTS[0], PARTS[1], staged]
    strays = ["blobs/a.1", "blobs/d.0", PARTS[2], stray]
    assert await list_unowned(database, *owned, *strays) == sorted(strays)
    assert await list_unowned(database) == []
    many = [f"blobs/x.{n}" for n in range(1200)]
    assert await list_unowned(database, *many, "blobs/a.0") == sorted(many)


async def test_a_key_of_another_store_is_another_key(database: Database) -> None:
    def work(tx: Transaction) -> None:
        blobs.put(tx, blob("a", "k1"))
        pending_deletions.insert(tx, STORE, "k2", "test")
        uploads.insert(tx, upload(SESSION, key="k3"))

    await database.write(work, actor="ann")
    assert await list_unowned(database, "k1", "k2", "k3") == []
    found = await database.read(
        lambda tx: key_ownership.list_unowned(tx, "other", ["k1", "k2", "k3"])
    )
    assert found == {"k1", "k2", "k3"}


MOVES: dict[str, Callable[[Transaction], object]] = {
    "linked": lambda tx: blobs.put(tx, blob("a", "key")),
    "ended": lambda tx: pending_deletions.insert(tx, STORE, "key", "test"),
}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("step", range(5))
async def test_a_key_that_goes_on_between_two_questions_is_met_again(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, move: str, step: int
) -> None:
    """On SQLite all queries of a transaction see one snapshot."""
    asked: list[str] = []
    ask = key_ownership._list_named

    def named(tx: Transaction, table: sa.Table, *rest: Any) -> set[str]:
        if len(asked) == step:
            with held_open(database_url) as other:
                uploads.delete(other, SESSION)
                MOVES[move](other)
        asked.append(table.name)
        return ask(tx, table, *rest)

    await database.write(lambda tx: uploads.insert(tx, upload(SESSION, key="key")), actor="ann")
    monkeypatch.setattr(key_ownership, "_list_named", named)
    assert await list_unowned(database, "key") == []
    assert asked == ["blobs", "pending_deletions", "uploads", "blobs", "pending_deletions"]
