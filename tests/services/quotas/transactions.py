"""Transactions on repositories and quotas, for the tests of usage counters."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from registry.errors import DatabaseUnavailableError
from registry.metadata.content import blobs, manifests, repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.deadlines import LONG_TIMEOUT_S
from registry.metadata.engine.transaction import Transaction
from registry.metadata.maintenance import usage_recount
from registry.metadata.pattern_filter import EACH
from registry.metadata.quotas import quotas
from registry.metadata.quotas.quotas import Standing
from registry.oci.names import RepositoryName
from tests.metadata.rows import blob, digest, digest_of, image, void

T = TypeVar("T")

PATTERNS = ("**", EACH, "a/**", "a/*", "a/x", "b/**", "*")
NAMES = [RepositoryName(n) for n in ("a/x", "a/y", "a/y/z", "b/x", "b/y", "c/x", "single")]
SEEDS = ["x" * n for n in range(1, 13)]
"""The size of a blob is the length of its seed."""


async def write(database: Database, work: Callable[[Transaction], T]) -> T:
    """Run a transaction, and repeat it while the database is too busy."""
    while True:
        with contextlib.suppress(DatabaseUnavailableError):
            return await database.write(work, actor="ann", timeout_s=LONG_TIMEOUT_S)
        # A transaction that waited too long is refused at once, and other tasks did not run
        # meanwhile.
        await asyncio.sleep(0.1)


async def settle(database: Database) -> None:
    """Count and sweep until nothing is left to do."""
    for step in (
        usage_recount.count_next,
        usage_recount.count_manifests_next,
        usage_recount.sweep_next,
    ):
        while await write(database, step):
            pass


def link(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repository = repositories.ensure(tx, name)
        # As an upload does: two at once must not both insert it.
        blobs.insert_new(tx, blob(seed))
        blobs.link(tx, repository, digest(seed))

    return work


def unlink(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, name, lock=True)
        if repository is not None and blobs.unlink(tx, repository, {digest(seed): None}):
            repositories.remove_if_empty(tx, repository)

    return work


def remove(name: RepositoryName) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, name, lock=True)
        if repository is not None:
            repositories.delete(tx, repository)

    return work


def put_manifest(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    """Push a manifest whose blobs are not linked, so that only the manifest counts."""

    def work(tx: Transaction) -> None:
        manifest = image(seed)
        repository = repositories.ensure(tx, name)
        manifests.put(tx, repository, digest_of(manifest), manifest, [])

    return work


def delete_manifest(name: RepositoryName, seed: str) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        repository = repositories.find(tx, name, lock=True)
        row = manifests.find(tx, name, digest_of(image(seed)))
        if repository is not None and row is not None:
            manifests.delete(tx, repository, row)
            repositories.remove_if_empty(tx, repository)

    return work


def put_quota(pattern: str) -> Callable[[Transaction], None]:
    return lambda tx: void(quotas.put(tx, pattern, 1000))


def drop_quota(pattern: str) -> Callable[[Transaction], None]:
    return lambda tx: void(quotas.delete(tx, pattern))


async def standing_of(database: Database, name: str) -> Standing:
    [standing] = await database.read(lambda tx: quotas.list_standings(tx, RepositoryName(name)))
    return standing


async def read_used(database: Database, name: str) -> int:
    """Return the used bytes of the only quota that applies to the repository."""
    return (await standing_of(database, name)).used
