"""The collector's state: its progress, and its record of the clock."""

import sqlalchemy as sa
from msgspec import Struct

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import gc_state


class GcState(Struct, frozen=True):
    """The collector's row. Times are in microseconds by the database's clock.

    At `clock_checked_at`, the database's clock was `clock_offset` ahead of the time since the boot
    `boot_id` of some machine. `clock_jumped_at` is None unless the clock has jumped.
    """

    boot_id: str
    clock_offset: int
    clock_checked_at: int
    clock_jumped_at: int | None
    clock_jump: int


def find(tx: Transaction) -> GcState:
    columns = [column for column in gc_state.columns if column.name != "id"]
    return GcState(*tx.execute(sa.select(*columns)).one())


def read_clock(tx: Transaction) -> int:
    """Return the time of the database's clock, in microseconds."""
    return int(tx.execute(sa.select(tx.read_clock())).scalar_one())


def record_clock_check(tx: Transaction, boot_id: str, offset: int, checked_at: int) -> None:
    """Record a comparison of the clocks and its time."""
    values = {"boot_id": boot_id, "clock_offset": offset, "clock_checked_at": checked_at}
    tx.execute(sa.update(gc_state).values(values))


def record_clock_jump(tx: Transaction, jumped_at: int, jump: int) -> None:
    """Record that the clock has jumped. Nothing is collected for a grace period after that."""
    tx.execute(sa.update(gc_state).values(clock_jumped_at=jumped_at, clock_jump=jump))


def clear_clock_jump(tx: Transaction) -> None:
    tx.execute(sa.update(gc_state).values(clock_jumped_at=None, clock_jump=0))
