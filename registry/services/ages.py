"""How old things are: by the database's clock, as long as that can be believed.

A clock that is set forward makes everything old at once. It is compared with one that nobody sets,
that of the machine since its start; where they part by more than a grace, nothing counts as old
for another.
"""

import logging
from dataclasses import dataclass

from registry import clock
from registry.metadata import rounds
from registry.metadata.candidates import SECOND
from registry.metadata.database import Database
from registry.metadata.rounds import Round
from registry.metadata.transaction import Transaction

logger = logging.getLogger(__name__)

LOOKS = 8
"""How often a grace the clocks are compared, at the least."""


@dataclass(frozen=True, slots=True)
class Look:
    """Both clocks at one moment, in microseconds: the database's, and that since `boot`, which was
    between two readings.
    """

    now: int
    boot: str
    steady: tuple[int, int]


def find_jump(row: Round, look: Look, grace: int) -> int:
    """By how much the database's clock has jumped, in microseconds; 0 for no more than the grace.

    Nobody knows how much time went by while only machines looked that have started anew: all of it
    is then taken for a jump.
    """
    if not row.boot:
        return 0
    if row.boot != look.boot:
        jump = look.now - row.clock
        return jump if abs(jump) > grace else 0
    least, most = (look.now - steady - row.ahead for steady in reversed(look.steady))
    if least > grace:
        return least
    return most if most < -grace else 0


class Ages:
    """Tells what is old enough. `grace` in seconds."""

    def __init__(self, database: Database, grace: float) -> None:
        self._db = database
        self._grace = int(grace * SECOND)

    async def find_until(self) -> int | None:
        """Until when a grace must have begun to be over now, in microseconds; None: nobody knows.

        What begins one later does not come before that, even if the clock jumps meanwhile.
        """
        row, look = await self._look()
        jump = find_jump(row, look, self._grace)
        is_over = row.jumped_at is not None and look.now >= row.jumped_at + self._grace
        if jump or is_over or self.is_late(row, look.now):
            await self._note(row, look, jump, is_over=is_over)
        if jump:
            logger.warning(
                "the database's clock has moved by %.0f s that nobody saw go by: nothing is "
                "dropped or collected for %.0f s from now",
                jump / SECOND,
                self._grace / SECOND,
            )
            return None
        return None if row.jumped_at is not None and not is_over else look.now - self._grace

    def find_pause(self, tx: Transaction) -> int | None:
        """Until when nothing is old, in microseconds, as far as is known; None: the clock has not
        jumped.
        """
        row = rounds.find(tx)
        return None if row.jumped_at is None else row.jumped_at + self._grace

    def is_late(self, row: Round, now: int) -> bool:
        """Whether the clocks are to be compared again."""
        return row.boot != clock.boot() or not 0 <= now - row.clock < self._grace / LOOKS

    async def _look(self) -> tuple[Round, Look]:
        def work(tx: Transaction) -> tuple[Round, int]:
            return rounds.find(tx), rounds.read_clock(tx)

        before = clock.steady()
        row, now = await self._db.read(work)
        return row, Look(now, clock.boot(), (before, clock.steady()))

    async def _note(self, row: Round, look: Look, jump: int, *, is_over: bool) -> None:
        follows = row.boot == look.boot and not jump
        ahead = row.ahead if follows else look.now - sum(look.steady) // 2

        def work(tx: Transaction) -> None:
            rounds.note_look(tx, look.boot, ahead, look.now)
            if jump:
                rounds.note_jump(tx, look.now, jump)
            elif is_over:
                rounds.forget_jump(tx)

        await self._db.write(work, actor="gc", frees=True)
