"""The row of the last run of the retention rules."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import retention_run

_r = retention_run.c


class RunRow(Struct, frozen=True):
    """A run. Times are in microseconds by the database's clock.

    `ended_at` is None while the run is in progress. `done` is the last processed repository. `tags`
    and `manifests` count the drops.
    """

    started_at: int
    ended_at: int | None
    done: str
    tags: int
    manifests: int


def find(tx: Transaction) -> RunRow | None:
    columns = (
        _r.started_at,
        _r.finished_at,
        _r.last_repository,
        _r.tags_dropped,
        _r.manifests_dropped,
    )
    row = tx.execute(sa.select(*columns)).one_or_none()
    return RunRow(*row) if row else None


def start(tx: Transaction) -> None:
    """Start a run, which replaces the last one."""
    values = {"finished_at": None, "last_repository": "", "tags_dropped": 0, "manifests_dropped": 0}
    insert = insert_into(retention_run).values(id=1, started_at=tx.read_clock(), **values)
    changed = {name: insert.excluded[name] for name in ("started_at", *values)}
    tx.execute(insert.on_conflict_do_update(index_elements=[_r.id], set_=changed))


def save(tx: Transaction, done: str, tags: int, manifests: int, *, ended: bool) -> None:
    """Add the drops up to the repository `done` to the run."""
    changed = {
        "last_repository": done,
        "tags_dropped": _r.tags_dropped + tags,
        "manifests_dropped": _r.manifests_dropped + manifests,
    }
    statement = sa.update(retention_run).values(**changed)
    tx.execute(statement.values(finished_at=tx.read_clock()) if ended else statement)
