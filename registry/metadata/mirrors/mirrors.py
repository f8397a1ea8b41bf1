"""Rows of mirrors: the upstream registries and the prefixes of their repositories."""

from dataclasses import asdict, dataclass, field

import sqlalchemy as sa

from registry.metadata.engine.transaction import Part, Transaction
from registry.metadata.mirrors import sync_runs, sync_schedules
from registry.metadata.tables import mirrors
from registry.oci.names import RepositoryName

_m = mirrors.c

_NAME = "mirrors"


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """A mirror. `options` is JSON, which the services define. Times are in microseconds."""

    name: str
    prefix: RepositoryName
    url: str
    options: str
    password: str | None = field(default=None, repr=False)
    created_by: str = ""
    created_at: int = 0
    changed_at: int = 0
    default_for: str | None = None


_COLUMNS = (
    _m.name,
    _m.prefix,
    _m.url,
    _m.options,
    _m.password,
    _m.created_by,
    _m.created_at,
    _m.changed_at,
    _m.default_for,
)


def lock(tx: Transaction) -> None:
    """Lock all mirrors, so that their prefixes and hosts stay distinct."""
    tx.lock_name(_NAME)


def insert(tx: Transaction, row: MirrorRow) -> MirrorRow:
    """Add a mirror. The actor and the times are set here."""
    tx.change_policy(Part.NOTHING)
    values = asdict(row) | {"prefix": row.prefix, "created_by": tx.actor}
    values |= {"created_at": tx.now, "changed_at": tx.now}
    added = tx.execute(sa.insert(mirrors).values(**values).returning(*_COLUMNS)).one()
    return MirrorRow(*added)


def update(tx: Transaction, row: MirrorRow) -> MirrorRow:
    """Change the URL, the options and the password of a mirror."""
    tx.change_policy(Part.NOTHING)
    changed = {"url": row.url, "options": row.options, "password": row.password}
    statement = sa.update(mirrors).where(_m.name == row.name)
    found = tx.execute(statement.values(**changed, changed_at=tx.now).returning(*_COLUMNS)).one()
    return MirrorRow(*found)


def set_default(tx: Transaction, name: str | None, default_for: str | None) -> None:
    """Make a mirror the default one, for the requests that `default_for` names, or none."""
    tx.change_policy(Part.NOTHING)
    tx.execute(sa.update(mirrors).where(_m.default_for.is_not(None)).values(default_for=None))
    tx.execute(sa.update(mirrors).where(_m.name == name).values(default_for=default_for))


def delete(tx: Transaction, name: str) -> bool:
    """Delete a mirror with its syncs. Returns False if there is none."""
    tx.change_policy(Part.NOTHING)
    sync_schedules.delete_of(tx, name)
    sync_runs.delete_of(tx, name)
    return tx.execute(sa.delete(mirrors).where(_m.name == name)).rowcount > 0


def find(tx: Transaction, name: str) -> MirrorRow | None:
    row = tx.execute(sa.select(*_COLUMNS).where(_m.name == name)).one_or_none()
    return MirrorRow(*row) if row else None


def list_all(tx: Transaction) -> list[MirrorRow]:
    """Return all mirrors, by name."""
    return [MirrorRow(*row) for row in tx.execute(sa.select(*_COLUMNS).order_by(_m.name))]
