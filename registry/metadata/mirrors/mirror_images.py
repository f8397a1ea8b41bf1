"""Images of mirrors: how large they are, when they were last used, and what belongs to them.

An image is a manifest that no index of its repository has as a child, and whose subject, if it has
one, is not in the repository.
"""

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.manifests import ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.leases import FILL
from registry.metadata.engine.transaction import Transaction
from registry.metadata.pattern_filter import matches_pattern
from registry.metadata.tables import (
    blobs,
    leases,
    manifest_edges,
    manifests,
    mirror_tags,
    pull_times,
    repositories,
    repository_blobs,
    tags,
)
from registry.oci.names import RepositoryName
from storage.digest import Digest

_b, _e, _l, _m, _r = blobs.c, manifest_edges.c, repository_blobs.c, manifests.c, repositories.c


class ImageUse(Struct, frozen=True):
    """An image, and when it or a part of it was last fetched or pulled, in microseconds."""

    used_at: int
    id: int
    repository: RepositoryName
    digest: Digest


class OwnBlob(Struct, frozen=True):
    """A blob of `size` bytes that only the given manifests of its repository use.

    `is_last` means that no other repository of the mirror has it.
    """

    digest: Digest
    size: int
    linked_at: int
    is_last: bool


def measure(tx: Transaction, pattern: str) -> int:
    """Return the bytes of the distinct blobs and of the manifests of matching repositories."""
    within = sa.select(_r.id).where(matches_pattern(_r.name, pattern)).cte("within")
    linked = sa.select(_l.digest).where(_l.repository_id.in_(sa.select(within.c.id)))
    size = sa.select(_total(_b.size)).where(_b.digest.in_(linked)).scalar_subquery()
    own = (
        sa.select(_total(_m.size))
        .where(_m.repository_id.in_(sa.select(within.c.id)))
        .scalar_subquery()
    )
    return int(tx.execute(sa.select(size + own)).scalar_one())


def _total(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def list_least_used(
    tx: Transaction, pattern: str, n: int, last: tuple[int, int] | None = None
) -> list[ImageUse]:
    """Return at most `n` images of matching repositories, the least recently used first.

    `last` has the time and the ID of the image to continue after.
    """
    return _list_uses(tx, matches_pattern(_r.name, pattern), n, last)


def find_use(tx: Transaction, repository: RepositoryRow, digest: Digest) -> ImageUse | None:
    """Return the use of a manifest, or None if it is missing or is not an image of its own."""
    found = _list_uses(tx, sa.and_(_r.id == repository.id, _m.digest == digest), 1, None)
    return found[0] if found else None


def _list_uses(
    tx: Transaction, where: sa.ColumnElement[bool], n: int, last: tuple[int, int] | None
) -> list[ImageUse]:
    parent, subject, child = manifest_edges.alias(), manifests.alias(), manifests.alias()
    is_child = sa.exists().where(
        parent.c.repository_id == _m.repository_id, parent.c.child_digest == _m.digest
    )
    is_referrer = sa.exists().where(
        subject.c.repository_id == _m.repository_id, subject.c.digest == _m.subject
    )
    part = (
        sa.select(_m.id.label("root"), _m.id.label("id"), _m.pushed_at)
        .join(repositories, _r.id == _m.repository_id)
        .where(where, ~is_child, ~is_referrer)
        .cte("part", recursive=True)
    )
    below = (
        sa.select(part.c.root, child.c.id, child.c.pushed_at)
        .join(manifest_edges, _e.manifest_id == part.c.id)
        .join(
            child,
            sa.and_(child.c.repository_id == _e.repository_id, child.c.digest == _e.child_digest),
        )
    )
    part = part.union(below)
    fetched = sa.func.max(part.c.pushed_at)
    pulled = sa.func.coalesce(sa.func.max(pull_times.c.pulled_at), 0)
    uses = (
        sa.select(part.c.root, sa.case((pulled > fetched, pulled), else_=fetched).label("used_at"))
        .join(pull_times, pull_times.c.manifest_id == part.c.id, isouter=True)
        .group_by(part.c.root)
        .subquery("uses")
    )
    query = (
        sa.select(uses.c.used_at, uses.c.root, _r.name, _m.digest)
        .join(manifests, _m.id == uses.c.root)
        .join(repositories, _r.id == _m.repository_id)
        .order_by(uses.c.used_at, uses.c.root)
        .limit(n)
    )
    if last is not None:
        used_at, root = last
        later = sa.and_(uses.c.used_at == used_at, uses.c.root > root)
        query = query.where(sa.or_(uses.c.used_at > used_at, later))
    return [ImageUse(*row) for row in tx.execute(query)]


def list_local_tags(tx: Transaction, repository: RepositoryRow, digest: Digest) -> list[str]:
    """Return the tags of the manifest that do not come from the upstream."""
    confirmed = sa.exists().where(
        mirror_tags.c.repository == repository.name,
        mirror_tags.c.tag == tags.c.name,
        mirror_tags.c.digest == digest,
    )
    query = sa.select(tags.c.name).where(
        tags.c.repository_id == repository.id, tags.c.digest == digest, ~confirmed
    )
    return list(tx.execute(query.order_by(tags.c.name)).scalars())


def delete_tags(tx: Transaction, repository: RepositoryRow, names: Collection[str]) -> None:
    """Delete what is known of tags that were deleted."""
    if names:
        t = mirror_tags.c
        tx.execute(sa.delete(mirror_tags).where(t.repository == repository.name, t.tag.in_(names)))


def is_filling(tx: Transaction, repository: RepositoryRow, rows: Sequence[ManifestRow]) -> bool:
    """Return whether a blob of the manifests is being fetched."""
    name = sa.literal(f"{FILL}{repository.name}/") + sa.type_coerce(_e.digest, sa.Text)
    query = (
        sa.select(_e.digest)
        .join(leases, leases.c.name == name)
        .where(_e.manifest_id.in_([row.id for row in rows]))
        .where(leases.c.expires_at >= tx.read_clock())
        .limit(1)
    )
    return tx.execute(query).first() is not None


def list_own_blobs(
    tx: Transaction, repository: RepositoryRow, rows: Sequence[ManifestRow], pattern: str
) -> list[OwnBlob]:
    """Return the blobs of the repository that only these manifests use, by digest."""
    ids = [row.id for row in rows]
    other, elsewhere, place = manifest_edges.alias(), repository_blobs.alias(), repositories.alias()
    named = sa.select(_e.blob_digest).where(_e.manifest_id.in_(ids), _e.blob_digest.is_not(None))
    is_used = sa.exists().where(
        other.c.repository_id == repository.id,
        other.c.blob_digest == _l.digest,
        other.c.manifest_id.not_in(ids),
    )
    is_elsewhere = (
        sa.select(elsewhere.c.digest)
        .join(place, place.c.id == elsewhere.c.repository_id)
        .where(elsewhere.c.digest == _l.digest, place.c.id != repository.id)
        .where(matches_pattern(place.c.name, pattern))
        .exists()
    )
    query = (
        sa.select(_l.digest, _b.size, _l.linked_at, ~is_elsewhere)
        .join(blobs, _b.digest == _l.digest)
        .where(_l.repository_id == repository.id, _l.digest.in_(named), ~is_used)
        .order_by(_l.digest)
    )
    return [OwnBlob(row[0], row[1], row[2], bool(row[3])) for row in tx.execute(query)]
