"""The collector's row: how far it is, and what it knows of the clock."""

from dataclasses import dataclass

import sqlalchemy as sa

from registry.metadata.tables import collector
from registry.metadata.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Round:
    """The row, all times in microseconds by the database's clock. `clock` was `ahead` of what had
    gone by since `boot`, a start of some machine. `jumped_at`: None unless the clock has jumped.
    """

    boot: str
    ahead: int
    clock: int
    jumped_at: int | None
    jump: int
    filling: str | None
    fill_since: int


def find(tx: Transaction) -> Round:
    columns = [column for column in collector.columns if column.name != "id"]
    return Round(*tx.execute(sa.select(*columns)).one())


def read_clock(tx: Transaction) -> int:
    """The database's clock, in microseconds."""
    return int(tx.execute(sa.select(tx.read_clock())).scalar_one())


def note_look(tx: Transaction, boot: str, ahead: int, clock: int) -> None:
    """Remember how the clocks compared, and when."""
    tx.execute(sa.update(collector).values(boot=boot, ahead=ahead, clock=clock))


def note_jump(tx: Transaction, clock: int, jump: int) -> None:
    """Remember that the clock has jumped; for a grace from `clock` nothing is collected."""
    tx.execute(sa.update(collector).values(jumped_at=clock, jump=jump))


def forget_jump(tx: Transaction) -> None:
    tx.execute(sa.update(collector).values(jumped_at=None, jump=0))


def note_walk(tx: Transaction, filling: str | None) -> None:
    """Remember how far the walk has come."""
    tx.execute(sa.update(collector).values(filling=filling))
