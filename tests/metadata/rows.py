"""Rows for tests, made by the functions under test, and direct reads of tables."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from registry.metadata import tables
from registry.metadata.access import (
    audit,
    failed_sign_ins,
    grants,
    groups,
    key_store,
    refresh_tokens,
    robots,
    secrets,
    signing_keys,
    users,
)
from registry.metadata.content import blobs, manifests, repositories, tags
from registry.metadata.content.blobs import BlobRow, BlobState
from registry.metadata.content.manifest_edges import Edge
from registry.metadata.content.manifests import ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.content.uploads import UploadRow
from registry.metadata.engine import connections
from registry.metadata.engine.database import Database, parse_url
from registry.metadata.engine.transaction import Transaction
from registry.metadata.quotas import quotas
from registry.metadata.retention import rules, run
from registry.metadata.retention.rules import RetentionRuleRow
from registry.oci.manifests import Manifest, parse_manifest
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest
from tests.support.kit import image_manifest, index_manifest

T = TypeVar("T")

NAME = RepositoryName("team/app")
STORE = "local"


def void(_: object) -> None:
    """Discard a result."""


def digest(seed: str) -> Digest:
    return Digest.of(seed.encode())


def digest_of(manifest: Manifest) -> Digest:
    return Digest.of(manifest.raw)


def blob(seed: str, key: str = "") -> BlobRow:
    return BlobRow(digest(seed), len(seed), STORE, key or f"blobs/{seed}.0", BlobState.LIVE)


def upload(upload_id: str, **changed: Any) -> UploadRow:
    values: dict[str, Any] = {
        "id": upload_id,
        "repository": NAME,
        "repository_generation": None,
        "principal": "ann",
        "algorithm": "sha256",
        "offset": 0,
        "prefix_digest": None,
        "store": STORE,
        "key_generation": "0",
        "key": None,
    }
    return UploadRow(**values | changed)


def image(seed: str, layers: Sequence[str] = ("layer",), **more: Any) -> Manifest:
    raw = image_manifest(f"config {seed}".encode(), [layer.encode() for layer in layers], **more)
    return parse_manifest(raw, None)


def index(children: Iterable[Manifest], **more: Any) -> Manifest:
    return parse_manifest(index_manifest([child.raw for child in children], **more), None)


def find(tx: Transaction, name: RepositoryName = NAME) -> RepositoryRow:
    row = repositories.find(tx, name)
    assert row is not None
    return row


def add_blob(tx: Transaction, repository: RepositoryRow, seed: str) -> Digest:
    if blobs.find_anywhere(tx, digest(seed)) is None:
        blobs.put(tx, blob(seed))
    blobs.link(tx, repository, digest(seed))
    return digest(seed)


def add(
    tx: Transaction, manifest: Manifest, *set_tags: str, name: RepositoryName = NAME
) -> ManifestRow:
    """Put a manifest, its tags and the blobs that it names. The entries of an index must exist."""
    repository = repositories.ensure(tx, name)
    edges = [Edge("entry", d.digest, child=True) for d in manifest.entries]
    named = [("layer", d) for d in manifest.layers]
    named += [("config", manifest.config)] if manifest.config else []
    for kind, descriptor in named:
        key = f"blobs/{descriptor.digest}"
        blobs.put(tx, BlobRow(descriptor.digest, descriptor.size, STORE, key, BlobState.LIVE))
        blobs.link(tx, repository, descriptor.digest)
        edges.append(Edge(kind, descriptor.digest, blob=True))
    manifests.put(tx, repository, digest_of(manifest), manifest, edges)
    for tag in set_tags:
        tags.put(tx, repository, Tag(tag), digest_of(manifest))
    row = manifests.find(tx, name, digest_of(manifest))
    assert row is not None
    return row


def add_access(tx: Transaction) -> None:
    """Put a row into each table of users, permissions and quotas."""
    quotas.put(tx, "team/**", 1 << 30)
    users.insert(tx, "ann", None, admin=True)
    ann = users.find(tx, "ann")
    groups.insert(tx, "devs")
    devs = groups.find(tx, "devs")
    robot = robots.insert(tx, "ci", None)
    assert ann is not None
    assert devs is not None
    assert robot is not None
    groups.add_member(tx, devs, ann)
    secrets.insert_for_robot(tx, robot, "id", "hash")
    grants.put(tx, "ann", "team/**", "pull")
    refresh_tokens.insert(tx, "id", "hash", credential="secret:id", service="s", client="c")
    signing_keys.insert(tx, "kid", "{}")
    key_store.insert(tx, "kid", b"sealed")
    failed_sign_ins.insert(tx, "127.0.0.1", "hash")
    audit.insert(
        tx, actor="ann", address="", request_id="", kind="user.create", target="ann", detail="{}"
    )


def add_retention(tx: Transaction) -> None:
    """Put a row into each table of retention except the pull times."""
    run.start(tx)
    rules.put(tx, RetentionRuleRow("team/**", '{"drop":["*"]}'))


async def race(
    databases: Sequence[Database], works: Iterable[Callable[[Transaction], T]]
) -> list[T]:
    """Run all works at once, spread over the databases."""
    return await asyncio.gather(
        *(
            databases[number % len(databases)].write(work, actor=f"writer {number}")
            for number, work in enumerate(works)
        )
    )


async def read_pages(
    database: Database, page: Callable[[Transaction, T | None], Sequence[T]]
) -> list[T]:
    """Return the rows of all pages. `page` gets the last row of the page before."""

    def after(last: T | None) -> Callable[[Transaction], Sequence[T]]:
        return lambda tx: page(tx, last)

    found: list[T] = []
    while more := await database.read(after(found[-1] if found else None)):
        found += more
    return found


async def rows(database: Database, table: sa.Table, **where: Any) -> list[Any]:
    query = sa.select(table).filter_by(**where).order_by(*table.primary_key.columns)
    return await database.read(lambda tx: list(tx.execute(query)))


async def events(database: Database) -> list[Any]:
    return await rows(database, tables.change_feed)


@contextlib.contextmanager
def held_open(url: str) -> Iterator[Transaction]:
    """Yield an open PostgreSQL transaction, which commits at the end of the block."""
    engine = connections.open_engine(parse_url(url))
    with engine.begin() as connection:
        transaction = Transaction(connection, "first", 1)
        yield transaction
        transaction.write_changes()
    engine.dispose()
