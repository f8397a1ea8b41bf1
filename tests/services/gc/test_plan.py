"""The plan reports what a run then does."""

from collections.abc import Callable
from typing import Any

import pytest

from registry.auth.policy.principals import OPERATOR
from registry.metadata.engine.transaction import Transaction
from registry.oci.names import RepositoryName
from tests.services.gc.conftest import GRACE, Yard

pytestmark = pytest.mark.anyio


async def test_a_run_does_what_was_planned(sweeping: Yard) -> None:
    shared = b"in two repositories"
    for name in ("one", "two"):
        await sweeping.push_blob(name, shared)
        await sweeping.push_blob(name, name.encode())
    await sweeping.push_blob("kept", b"kept by a manifest elsewhere")
    await sweeping.push_image("two", "latest", "kept")
    await sweeping.push_image("two", "", "untagged")
    for _ in range(3):
        await sweeping.push_blob("three", b"gone with its repository")
    await sweeping.opened.registry.repositories.delete(RepositoryName("three"), OPERATOR)
    await sweeping.age(GRACE)
    await sweeping.push_blob("young", b"young")
    before = await sweeping.count_rows(), sweeping.list_stored()
    planned = await sweeping.opened.registry.collector.plan()
    assert (await sweeping.count_rows(), sweeping.list_stored()) == before
    assert planned.repositories.keys() == {"one", "two", "kept"}
    assert planned.repositories["two"].manifests == 1
    assert planned.blobs == 5
    done = await sweeping.collect()
    assert (done.manifests, done.blobs, done.bytes, done.repositories) == (
        planned.manifests,
        planned.blobs,
        planned.bytes,
        planned.repositories,
    )
    assert len(sweeping.list_stored()) == before[0]["blobs"] - 5


async def test_a_blob_that_a_repository_keeps_is_not_planned_for_another(yard: Yard) -> None:
    await yard.push_image("kept", "latest")
    await yard.push_blob("other", b"layer one ")
    await yard.age(GRACE)
    planned = await yard.opened.registry.collector.plan()
    assert (planned.blobs, planned.bytes) == (0, 0)
    assert planned.repositories["other"].bytes == 10


async def test_no_read_takes_longer_where_more_repositories_lose_something(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read makes only a few queries, so that it meets its deadline."""
    for n in range(20):
        await yard.push_blob(f"lone/{n}", b"blob %d" % n)
    await yard.age(GRACE)
    database, asked = yard.opened.database, []
    read, execute = database.read, Transaction.execute

    async def reading(work: Callable[[Transaction], Any], **options: Any) -> Any:
        asked.append(0)
        return await read(work, **options)

    def executing(tx: Transaction, statement: Any) -> Any:
        asked[-1] += 1
        return execute(tx, statement)

    monkeypatch.setattr(database, "read", reading)
    monkeypatch.setattr(Transaction, "execute", executing)
    assert (await yard.opened.registry.collector.plan()).blobs == 20
    assert max(asked) < 10
