"""Rows of pulls: the time of a manifest's last pull by each tag and by digest."""

from collections.abc import Sequence

import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import TEXT, manifests, pull_times

_p = pull_times.c


def put(tx: Transaction, seen: Sequence[tuple[int, str, int]]) -> None:
    """Record pulls in one statement: manifest ID, tag or empty text, and age in microseconds.

    A later recorded time stays, and manifests that no longer exist are skipped.
    """
    given = (
        sa.values(
            sa.column("manifest_id", sa.BigInteger),
            sa.column("tag", TEXT),
            sa.column("age", sa.BigInteger),
            name="given",
        )
        .data(list(seen))
        .cte()
    )
    # Locked in one order, because several workers write the same rows concurrently.
    found = (
        sa.select(given.c.manifest_id, given.c.tag, tx.read_clock() - given.c.age)
        .where(given.c.manifest_id.in_(sa.select(manifests.c.id)))
        .order_by(given.c.manifest_id, given.c.tag)
    )
    insert = tx.insert(pull_times).from_select([_p.manifest_id, _p.tag, _p.pulled_at], found)
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=[_p.manifest_id, _p.tag],
            set_={"pulled_at": insert.excluded.pulled_at},
            where=_p.pulled_at < insert.excluded.pulled_at,
        )
    )
