"""What keeps a manifest, a blob's link to a repository, or a blob: asked here and nowhere else.

The collector, its plan and `gc why` ask the same. What is to keep something more is added here.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from registry.metadata.tables import (
    DigestText,
    holds,
    manifest_edges,
    manifests,
    repositories,
    repository_blobs,
    tags,
)
from registry.metadata.transaction import Kind, Transaction
from storage.digest import Digest

Query = sa.Select[tuple[Any]]


class Keeper(StrEnum):
    """What can keep something."""

    # A tag of the manifest.
    TAG = "tag"
    # An index that has the manifest as its child.
    INDEX = "index"
    # The manifest that the manifest is a referrer of.
    SUBJECT = "subject"
    # A hold on the manifest, also one that has expired until the collector has seen that.
    HOLD = "hold"
    # A manifest of the repository that uses the blob.
    MANIFEST = "manifest"
    # A repository that links the blob.
    LINK = "link"


def list_keepers(
    kind: Kind, repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> Mapping[Keeper, Query]:
    """For each sort of keeper the query of all there are: tags by name, manifests by digest,
    holds by reason, repositories by name. `repository_id` and `digest` are values, or columns of a
    query around.
    """
    match kind:
        case Kind.MANIFEST:
            return _of_manifest(repository_id, digest)
        case Kind.LINK:
            return {Keeper.MANIFEST: _users(manifest_edges.alias(), "blob", repository_id, digest)}
        case Kind.BLOB:
            return {Keeper.LINK: _links(digest)}


def list_kept_by(
    tx: Transaction, kind: Kind, repository_id: int, digest: Digest, n: int
) -> list[tuple[Keeper, Any]]:
    """At most `n` keepers of each sort, told as by `list_keepers`."""
    place = sa.literal(repository_id), sa.literal(digest, DigestText)
    return [
        (keeper, found)
        for keeper, query in list_keepers(kind, *place).items()
        for found in tx.execute(query.distinct().limit(n)).scalars()
    ]


def is_kept(
    kind: Kind, repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> sa.ColumnElement[bool]:
    """Whether anything keeps it."""
    queries = list_keepers(kind, repository_id, digest).values()
    return sa.or_(*(query.exists() for query in queries))


def _of_manifest(
    repository_id: sa.ColumnElement[int], digest: sa.ColumnElement[Any]
) -> Mapping[Keeper, Query]:
    tag, referrer, subject = tags.alias(), manifests.alias(), manifests.alias()
    hold = holds.alias()
    return {
        Keeper.TAG: sa.select(tag.c.name).where(
            tag.c.repository_id == repository_id, tag.c.digest == digest
        ),
        Keeper.INDEX: _users(manifest_edges.alias(), "child", repository_id, digest),
        Keeper.SUBJECT: sa.select(subject.c.digest)
        .join(
            referrer,
            sa.and_(
                referrer.c.repository_id == subject.c.repository_id,
                referrer.c.subject == subject.c.digest,
            ),
        )
        .where(referrer.c.repository_id == repository_id, referrer.c.digest == digest),
        Keeper.HOLD: sa.select(hold.c.reason).where(
            hold.c.repository_id == repository_id, hold.c.digest == digest
        ),
    }


def _users(
    edge: sa.FromClause,
    tie: str,
    repository_id: sa.ColumnElement[int],
    digest: sa.ColumnElement[Any],
) -> Query:
    """The manifests whose edges tie the digest."""
    user = manifests.alias()
    return (
        sa.select(user.c.digest)
        .join(edge, edge.c.manifest_id == user.c.id)
        .where(edge.c.repository_id == repository_id, edge.c[f"{tie}_digest"] == digest)
    )


def _links(digest: sa.ColumnElement[Any]) -> Query:
    link, repository = repository_blobs.alias(), repositories.alias()
    return (
        sa.select(repository.c.name)
        .join(link, link.c.repository_id == repository.c.id)
        .where(link.c.digest == digest)
    )
