"""Rows of pulls: the time of a manifest's last pull by each tag and by digest."""

from collections.abc import Sequence

import sqlalchemy as sa

from registry.metadata.engine.statements import DatabaseClock, Statement, insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import manifests, pull_times

_p = pull_times.c


def _prepare_put() -> Statement:
    given = sa.select(
        manifests.c.id,
        sa.bindparam("tag", type_=_p.tag.type),
        DatabaseClock() - sa.bindparam("age", type_=sa.BigInteger),
    ).where(manifests.c.id == sa.bindparam("manifest_id"))
    rows = insert_into(pull_times).from_select([_p.manifest_id, _p.tag, _p.pulled_at], given)
    return Statement(
        rows.on_conflict_do_update(
            index_elements=[_p.manifest_id, _p.tag],
            set_={"pulled_at": rows.excluded.pulled_at},
            where=_p.pulled_at < rows.excluded.pulled_at,
        )
    )


_PUT = _prepare_put()


def put(tx: Transaction, seen: Sequence[tuple[int, str, int]]) -> None:
    """Record pulls: manifest ID, tag or empty text, and age in microseconds.

    A later recorded time stays, and manifests that no longer exist are skipped.
    """
    # Locked in one order, because several workers write the same rows concurrently.
    rows = [
        {"manifest_id": manifest_id, "tag": tag, "age": age}
        for manifest_id, tag, age in sorted(seen)
    ]
    tx.run_each(_PUT, rows)
