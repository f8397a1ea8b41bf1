"""Manifests whose bytes cannot be read, so that it is unknown what they reference.

The collector deletes nothing in their repositories. The row of a manifest is deleted with it, and
when the manifest is pushed again.
"""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import Statement, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import manifest_bytes, manifests, repositories, unreadable_manifests
from registry.oci.names import RepositoryName
from storage.digest import Digest

_m, _u = manifests.c, unreadable_manifests.c

_SAME = sa.and_(_u.repository_id == _m.repository_id, _u.digest == _m.digest)

_FORGET = Statement(
    sa.delete(unreadable_manifests).where(
        _u.repository_id == sa.bindparam("repository"), _u.digest == sa.bindparam("digest")
    )
)


class StoredManifest(Struct, frozen=True):
    """A manifest as stored.

    `raw` is None if it has no bytes. `noted` means that it is recorded as unreadable.
    """

    id: int
    repository_id: int
    digest: Digest
    media_type: str
    raw: bytes | None
    noted: bool


def list_stored(tx: Transaction, last: int, n: int, most: int) -> list[StoredManifest]:
    """Return at most `n` manifests after the ID `last`, in order, with at most `most` bytes.

    Returns at least one manifest, even if it is larger.
    """
    sizes = sa.select(_m.id, _m.size).where(_m.id > last).order_by(_m.id).limit(n)
    total, until = 0, last
    for number, size in tx.execute(sizes):
        total += size
        if total > most and until != last:
            break
        until = number
    query = (
        sa.select(
            _m.id,
            _m.repository_id,
            _m.digest,
            _m.media_type,
            manifest_bytes.c.bytes,
            _u.digest.is_not(None),
        )
        .outerjoin(manifest_bytes, manifest_bytes.c.manifest_id == _m.id)
        .outerjoin(unreadable_manifests, _SAME)
        .where(_m.id > last, _m.id <= until)
        .order_by(_m.id)
    )
    return [StoredManifest(*row) for row in tx.execute(query)]


def is_any(tx: Transaction, repository_id: int) -> bool:
    """Return whether the repository has an unreadable manifest, which may reference anything."""
    query = sa.select(_u.digest).join(manifests, _SAME).where(_u.repository_id == repository_id)
    return tx.execute(query.limit(1)).first() is not None


def list_known(tx: Transaction, n: int) -> list[tuple[RepositoryName, Digest]]:
    """Return at most `n` unreadable manifests with their repositories."""
    query = (
        sa.select(repositories.c.name, _u.digest)
        .join(manifests, _SAME)
        .join(repositories, repositories.c.id == _u.repository_id)
        .order_by(_u.repository_id, _u.digest)
    )
    return [(name, digest) for name, digest in tx.execute(query.limit(n))]


def count(tx: Transaction) -> int:
    query = sa.select(sa.func.count()).select_from(unreadable_manifests).join(manifests, _SAME)
    return int(tx.execute(query).scalar_one())


def record(tx: Transaction, repository_id: int, digest: Digest) -> None:
    """Record that a manifest cannot be read."""
    insert = insert_into(unreadable_manifests).values(
        repository_id=repository_id, digest=digest, found_at=tx.now
    )
    tx.execute(insert.on_conflict_do_nothing())


def forget(tx: Transaction, repository_id: int, digest: Digest) -> None:
    """Delete the record, because the manifest is readable or was removed."""
    tx.run(_FORGET, repository=repository_id, digest=digest)
