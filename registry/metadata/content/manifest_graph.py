"""The manifests of a repository, what they reference, and other users of the blobs."""

from collections.abc import Collection, Iterable, Iterator

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.content.blobs import BlobState
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import Statement
from registry.metadata.engine.transaction import CHUNK, Transaction, in_chunks
from registry.metadata.tables import TEXT, blobs, manifest_edges, manifests, repository_blobs
from storage.digest import Digest

_m, _e, _b, _l = manifests.c, manifest_edges.c, blobs.c, repository_blobs.c

_LIST_PRESENT = Statement(
    sa.select(_l.digest)
    .join(blobs, _b.digest == _l.digest)
    .where(_l.repository_id == sa.bindparam("repository"))
    .where(_l.digest.in_(sa.bindparam("digests")), _b.state == BlobState.LIVE.value)
    .union(
        sa.select(_m.digest)
        .where(_m.repository_id == sa.bindparam("repository"))
        .where(_m.digest.in_(sa.bindparam("digests")))
    )
)

_FIND_PARENT = Statement(
    sa.select(_m.digest)
    .join(manifest_edges, _e.manifest_id == _m.id)
    .where(_e.repository_id == sa.bindparam("repository"))
    .where(_e.digest == sa.bindparam("digest", type_=_e.digest.type))
    .limit(1)
)


class Node(Struct, frozen=True):
    """A manifest of `size` bytes, with its children that are in this repository."""

    id: int
    digest: Digest
    size: int
    subject: Digest | None
    children: tuple[Digest, ...]


class BlobShare(Struct, frozen=True):
    """A blob of `size` bytes in a repository.

    `users` is the number of manifests of the repository that reference it. `elsewhere` says whether
    other repositories have it too.
    """

    digest: Digest
    size: int
    users: int
    elsewhere: bool


def iter_nodes(tx: Transaction, repository: RepositoryRow) -> Iterator[Node]:
    """Yield all manifests of the repository."""
    last, more = "", True
    while more:
        query = (
            sa.select(_m.id, _m.digest, _m.size, _m.subject)
            .where(_m.repository_id == repository.id, sa.type_coerce(_m.digest, TEXT) > last)
            .order_by(_m.digest)
            .limit(CHUNK)
        )
        some = list(tx.execute(query))
        children: dict[int, list[Digest]] = {}
        named = sa.select(_e.manifest_id, _e.child_digest).where(
            _e.manifest_id.in_([row[0] for row in some]), _e.child_digest.is_not(None)
        )
        for manifest_id, child in tx.execute(named):
            children.setdefault(manifest_id, []).append(child)
        for row_id, digest, size, subject in some:
            yield Node(row_id, digest, size, subject, tuple(children.get(row_id, ())))
        more = len(some) == CHUNK
        last = str(some[-1][1]) if some else last


def find_parent(tx: Transaction, repository: RepositoryRow, digest: Digest) -> Digest | None:
    """Return a manifest of the repository that references this blob or manifest, if there is one.

    The target need not be there.
    """
    return next(iter(tx.fetch_values(_FIND_PARENT, repository=repository.id, digest=digest)), None)


def list_blobs(tx: Transaction, manifest_ids: Collection[int]) -> list[tuple[int, Digest]]:
    """Return pairs of manifest ID and blob, for each blob that the manifests reference."""
    query = (
        sa.select(_e.manifest_id, _e.blob_digest)
        .where(_e.manifest_id.in_(manifest_ids), _e.blob_digest.is_not(None))
        .distinct()
    )
    return [(manifest_id, digest) for manifest_id, digest in tx.execute(query)]


def iter_shares(
    tx: Transaction, repository: RepositoryRow, digests: Collection[Digest]
) -> Iterator[BlobShare]:
    """Yield the users of each blob. All blobs must be linked to the repository."""
    other = repository_blobs.alias()
    users = (
        sa.select(sa.func.count(_e.manifest_id.distinct()))
        .where(_e.repository_id == repository.id, _e.blob_digest == _b.digest)
        .scalar_subquery()
    )
    elsewhere = sa.exists().where(
        other.c.digest == _b.digest, other.c.repository_id != repository.id
    )
    for chunk in in_chunks(digests):
        query = sa.select(_b.digest, _b.size, users, elsewhere).where(_b.digest.in_(chunk))
        for row in tx.execute(query):
            yield BlobShare(row[0], row[1], row[2], bool(row[3]))


def list_missing(
    tx: Transaction, repository: RepositoryRow, digests: Iterable[Digest]
) -> list[Digest]:
    """Return the digests that are neither live blobs nor manifests of the repository, in order.

    Takes no locks, so a later transaction may find a different result.
    """
    missing: list[Digest] = []
    for chunk in in_chunks(digests):
        found = set(tx.fetch_values(_LIST_PRESENT, repository=repository.id, digests=chunk))
        missing += [digest for digest in chunk if digest not in found]
    return missing
