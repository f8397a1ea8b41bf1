"""Queries of the change feed."""

from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Change, Transaction
from registry.metadata.tables import change_feed
from registry.oci.names import RepositoryName
from registry.oci.references import Tag
from storage.digest import Digest

_f = change_feed.c


class ChangeRow(Struct, frozen=True):
    """One change. `revision` has no gaps and is in commit order; `at` is in microseconds."""

    revision: int
    at: int
    actor: str
    kind: Change
    repository: RepositoryName
    generation: str
    digest: Digest | None
    tag: str | None
    old_digest: Digest | None


_COLUMNS = (
    _f.revision,
    _f.at,
    _f.actor,
    _f.kind,
    _f.repository,
    _f.generation,
    _f.digest,
    _f.tag,
    _f.old_digest,
)


def _row(row: sa.Row[*tuple[Any, ...]]) -> ChangeRow:
    revision, at, actor, kind, *rest = row
    return ChangeRow(revision, at, actor, Change(kind), *rest)


def list_after(tx: Transaction, revision: int, n: int) -> list[ChangeRow]:
    """Return at most `n` changes after `revision`, in order."""
    query = sa.select(*_COLUMNS).where(_f.revision > revision).order_by(_f.revision).limit(n)
    return [_row(row) for row in tx.execute(query)]


def find_last_time(tx: Transaction, before: int) -> int | None:
    """Return the time of the last change before `before`, both in microseconds."""
    query = sa.select(_f.at).where(_f.at < before).order_by(_f.revision.desc()).limit(1)
    found = tx.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def list_of_tag(tx: Transaction, name: RepositoryName, tag: Tag, n: int) -> list[ChangeRow]:
    """Return the latest `n` changes of a tag, newest first.

    Includes changes in earlier repositories of the same name.
    """
    query = (
        sa.select(*_COLUMNS)
        .where(_f.repository == name, _f.tag == str(tag))
        .order_by(_f.revision.desc())
        .limit(n)
    )
    return [_row(row) for row in tx.execute(query)]


def find_of_tag_at(
    tx: Transaction, name: RepositoryName, tag: Tag, at: int | None
) -> ChangeRow | None:
    """Return the last change of a tag up to a time in microseconds, by default up to now."""
    query = sa.select(*_COLUMNS).where(_f.repository == name, _f.tag == str(tag))
    if at is not None:
        query = query.where(_f.at <= at)
    row = tx.execute(query.order_by(_f.revision.desc()).limit(1)).one_or_none()
    return _row(row) if row else None


def find_digest_before(
    tx: Transaction, name: RepositoryName, tag: Tag, digest: Digest | None
) -> Digest | None:
    """Return the last digest that the tag pointed at, other than `digest`."""
    query = sa.select(_f.digest).where(
        _f.repository == name, _f.tag == str(tag), _f.digest.is_not(None)
    )
    if digest is not None:
        query = query.where(_f.digest != digest)
    return tx.execute(query.order_by(_f.revision.desc()).limit(1)).scalar_one_or_none()


def find_end(tx: Transaction, generation: str) -> ChangeRow | None:
    """Return the deletion of a repository, which also ended its tags."""
    # A literal, because a partial index is used only if the statement itself repeats its condition.
    ended: sa.ColumnElement[str] = sa.literal_column(f"'{Change.REPOSITORY_DELETE.value}'")
    query = sa.select(*_COLUMNS).where(_f.generation == generation, _f.kind == ended)
    row = tx.execute(query).one_or_none()
    return _row(row) if row else None
