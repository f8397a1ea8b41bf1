"""Tags and manifests dropped by retention, from the change feed."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.tables import change_feed
from registry.oci.names import RepositoryName
from storage.digest import Digest

_f = change_feed.c

_ACTOR = "retention"
_KINDS = (Change.TAG_DELETE.value, Change.MANIFEST_DELETE.value)


class DropRow(Struct, frozen=True):
    """A dropped tag with its manifest, or a dropped manifest.

    `revision` is that of the change; `at` is in microseconds.
    """

    revision: int
    at: int
    repository: RepositoryName
    tag: str | None
    digest: Digest


def _select() -> sa.Select[tuple[int, int, RepositoryName, str | None, Digest]]:
    dropped = sa.func.coalesce(_f.old_digest, _f.digest, type_=_f.digest.type)
    query = sa.select(_f.revision, _f.at, _f.repository, _f.tag, dropped)
    return query.where(_f.actor == _ACTOR, _f.kind.in_(_KINDS))


def list_before(tx: Transaction, revision: int | None, since: int, n: int) -> list[DropRow]:
    """Return at most `n` drops since a time, latest first, optionally before a revision."""
    query = _select().where(_f.at >= since).order_by(_f.revision.desc()).limit(n)
    if revision is not None:
        query = query.where(_f.revision < revision)
    return [DropRow(*row) for row in tx.execute(query)]


def list_from(tx: Transaction, revision: int, n: int) -> list[DropRow]:
    """Return at most `n` drops from a revision on, in order."""
    query = _select().where(_f.revision >= revision).order_by(_f.revision).limit(n)
    return [DropRow(*row) for row in tx.execute(query)]
