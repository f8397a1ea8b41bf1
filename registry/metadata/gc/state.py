"""The collector's state: its progress, and its record of the clock."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.engine.transaction import Transaction
from registry.metadata.tables import gc_state


@dataclass(frozen=True, slots=True)
class GcState:
    """The collector's row. Times are in microseconds by the database's clock.

    At `clock`, the database's clock was `ahead` of the time since `boot`, a boot of some machine.
    `jumped_at` is None unless the clock has jumped.
    """

    boot: str
    ahead: int
    clock: int
    jumped_at: int | None
    jump: int
    backfill_cursor: str | None
    fill_since: int


def find(tx: Transaction) -> GcState:
    columns = [column for column in gc_state.columns if column.name != "id"]
    return GcState(*tx.execute(sa.select(*columns)).one())


def read_clock(tx: Transaction) -> int:
    """Return the time of the database's clock, in microseconds."""
    return int(tx.execute(sa.select(tx.read_clock())).scalar_one())


def record_clock_check(tx: Transaction, boot: str, ahead: int, clock: int) -> None:
    """Record a comparison of the clocks and its time."""
    tx.execute(sa.update(gc_state).values(boot_id=boot, clock_offset=ahead, clock_checked_at=clock))


def record_clock_jump(tx: Transaction, clock: int, jump: int) -> None:
    """Record that the clock has jumped. Nothing is collected for a grace period from `clock`."""
    tx.execute(sa.update(gc_state).values(clock_jumped_at=clock, clock_jump=jump))


def clear_clock_jump(tx: Transaction) -> None:
    tx.execute(sa.update(gc_state).values(clock_jumped_at=None, clock_jump=0))


def record_backfill(tx: Transaction, cursor: str | None) -> None:
    """Record the progress of the backfill."""
    tx.execute(sa.update(gc_state).values(backfill_cursor=cursor))
