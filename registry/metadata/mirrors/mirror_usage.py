"""Rows of the usage of mirrors, as last measured."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.statements import insert_into
from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import mirror_usage

_u = mirror_usage.c


class MirrorUsage(Struct, frozen=True):
    """The bytes of a mirror as of `measured_at`, in microseconds by the database's clock.

    `is_evicting` means that an eviction has begun and is not done.
    """

    bytes: int
    measured_at: int
    is_evicting: bool


def find(tx: Transaction, name: str) -> MirrorUsage | None:
    """Return the usage of a mirror, or None if it was not measured yet."""
    query = sa.select(_u.bytes, _u.measured_at, _u.is_evicting).where(_u.mirror == name)
    row = tx.execute(query).one_or_none()
    return MirrorUsage(row[0], row[1], bool(row[2])) if row else None


def list_measured(tx: Transaction, since: int) -> dict[str, bool]:
    """Return the mirrors that were measured since a time, and whether each is evicting."""
    query = sa.select(_u.mirror, _u.is_evicting).where(_u.measured_at >= since)
    return {name: bool(is_evicting) for name, is_evicting in tx.execute(query)}


def put(tx: Transaction, name: str, size: int, *, is_evicting: bool) -> None:
    """Record the bytes of a mirror."""
    row = insert_into(mirror_usage).values(
        mirror=name, bytes=size, measured_at=tx.read_clock(), is_evicting=int(is_evicting)
    )
    changed = {name: row.excluded[name] for name in ("bytes", "measured_at", "is_evicting")}
    tx.execute(row.on_conflict_do_update(index_elements=[_u.mirror], set_=changed))
