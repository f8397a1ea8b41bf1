"""Referrers: manifests with a subject, and the fallback indexes that list them."""

import json
from collections.abc import Collection

import sqlalchemy as sa

from registry.metadata.content.manifests import MANIFEST_COLUMNS, ManifestRow
from registry.metadata.content.repositories import RepositoryRow
from registry.metadata.engine.statements import Statement, bind_limit
from registry.metadata.engine.transaction import CHUNK, Transaction
from registry.metadata.tables import TEXT, DigestText, manifest_edges, manifests
from storage.digest import Digest

_m, _e = manifests.c, manifest_edges.c

_PAGE = (
    sa.select(*MANIFEST_COLUMNS)
    .where(_m.repository_id == sa.bindparam("repository"))
    .where(_m.subject == sa.bindparam("subject"))
    .where(sa.type_coerce(_m.digest, TEXT) > sa.bindparam("last"))
    .order_by(_m.digest)
    .limit(bind_limit())
)
_LIST_PAGE = Statement(_PAGE)
_LIST_PAGE_OF_TYPE = Statement(_PAGE.where(_m.artifact_type == sa.bindparam("artifact_type")))
_READ_ANNOTATIONS = Statement(
    sa.select(_m.id, _m.annotations).where(_m.id.in_(sa.bindparam("ids")))
)


def list_page(
    tx: Transaction,
    repository: RepositoryRow,
    subject: Digest,
    *,
    artifact_type: str | None,
    last: str,
    n: int,
) -> list[ManifestRow]:
    """Return at most `n` manifests with this subject after the digest `last`, in digest order."""
    values = {"repository": repository.id, "subject": subject, "last": last, "n": n}
    if artifact_type is None:
        rows = tx.fetch_all(_LIST_PAGE, **values)
    else:
        rows = tx.fetch_all(_LIST_PAGE_OF_TYPE, artifact_type=artifact_type, **values)
    return [ManifestRow(*row) for row in rows]


def read_annotations(tx: Transaction, rows: Collection[ManifestRow]) -> dict[int, dict[str, str]]:
    """Return the annotations of those manifests that have any, by ID."""
    found: dict[int, dict[str, str]] = {}
    ids = [row.id for row in rows]
    for start in range(0, len(ids), CHUNK):
        some = tx.fetch_all(_READ_ANNOTATIONS, ids=ids[start : start + CHUNK])
        found.update((row_id, json.loads(text)) for row_id, text in some if text)
    return found


def list_by_digest_prefix(
    tx: Transaction, repository: RepositoryRow, begins: Collection[str]
) -> dict[str, Digest]:
    """Return a manifest of the repository for each digest prefix (`algorithm:hex…`), if any."""
    found: dict[str, Digest] = {}
    texts, text = sorted(begins), sa.type_coerce(_m.digest, TEXT)
    for start in range(0, len(texts), CHUNK):
        some = [(begin,) for begin in texts[start : start + CHUNK]]
        given = sa.values(sa.column("begin", TEXT), name="given").data(some).cte()
        first = (
            sa.select(sa.func.min(_m.digest, type_=DigestText))
            .where(_m.repository_id == repository.id)
            .where(text >= given.c.begin, text < given.c.begin + "g")
            .scalar_subquery()
        )
        query = sa.select(given.c.begin, first)
        found.update((begin, digest) for begin, digest in tx.execute(query) if digest is not None)
    return found


def list_with_referrers(
    tx: Transaction, repository: RepositoryRow, pairs: Collection[tuple[Digest, Digest]]
) -> set[tuple[Digest, Digest]]:
    """Return the pairs of an index and a subject where the index lists a referrer of the subject.

    The referrer is a manifest of the repository.
    """
    found: set[tuple[Digest, Digest]] = set()
    ordered = sorted(set(pairs))
    for start in range(0, len(ordered), CHUNK):
        some = ordered[start : start + CHUNK]
        columns = (sa.column("parent", DigestText), sa.column("subject", DigestText))
        given = sa.values(*columns, name="given").data(some).cte()
        index, child = manifests.alias(), manifests.alias()
        listed = (
            sa.exists()
            .where(index.c.repository_id == repository.id, index.c.digest == given.c.parent)
            .where(_e.manifest_id == index.c.id, _e.child_digest == child.c.digest)
            .where(child.c.repository_id == repository.id, child.c.subject == given.c.subject)
        )
        query = sa.select(given.c.parent, given.c.subject).where(listed)
        found.update((parent, subject) for parent, subject in tx.execute(query))
    return found
