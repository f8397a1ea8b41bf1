"""Age checks based on the database's clock, with protection against clock jumps.

A clock that is set forward makes everything old at once. The database's clock is therefore compared
with a monotonic clock, CLOCK_BOOTTIME. If they diverge by more than one grace period, nothing
counts as old for another grace period.
"""

import logging

from msgspec import Struct

from registry import clock
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import state
from registry.metadata.gc.queue import SECOND
from registry.metadata.gc.state import GcState

logger = logging.getLogger(__name__)

CHECKS_PER_GRACE = 8
"""Minimum number of clock comparisons per grace period."""


class ClockReading(Struct, frozen=True):
    """A reading of both clocks, in microseconds.

    `now` is the database's clock. `boot_id` identifies the boot of this machine, and `boottime`
    holds its boot time clock before and after `now` was read.
    """

    now: int
    boot_id: str
    boottime: tuple[int, int]


def find_jump(row: GcState, reading: ClockReading, grace: int) -> int:
    """Return the jump of the database's clock in microseconds, or 0 if within `grace`.

    After a reboot, or on another machine, the elapsed time is unknown. All time since the last
    comparison then counts as a jump.
    """
    if not row.boot_id:
        return 0
    if row.boot_id != reading.boot_id:
        jump = reading.now - row.clock_checked_at
        return jump if abs(jump) > grace else 0
    least, most = (
        reading.now - boottime - row.clock_offset for boottime in reversed(reading.boottime)
    )
    if least > grace:
        return least
    return most if most < -grace else 0


class ClockGuard:
    """The decision about what is old enough. `grace` is in seconds."""

    def __init__(self, database: Database, grace: float) -> None:
        self._db = database
        self._grace = int(grace * SECOND)

    async def cutoff(self) -> int | None:
        """Return the cutoff in microseconds, or None if the clock cannot be trusted.

        A grace period that started at or before the cutoff is over. A grace period that starts
        after this call starts after the cutoff, even if the clock jumps in between.
        """
        row, reading = await self._read_clocks()
        jump = find_jump(row, reading, self._grace)
        is_over = (
            row.clock_jumped_at is not None and reading.now >= row.clock_jumped_at + self._grace
        )
        if jump or is_over or self.is_late(row, reading.now):
            await self._record(row, reading, jump, is_over=is_over)
        if jump:
            logger.warning(
                "the database clock has jumped by %.0f s: nothing is dropped or collected "
                "for the next %.0f s",
                jump / SECOND,
                self._grace / SECOND,
            )
            return None
        return (
            None if row.clock_jumped_at is not None and not is_over else reading.now - self._grace
        )

    def find_pause(self, tx: Transaction) -> int | None:
        """Return the end of the pause after a clock jump, in microseconds, or None.

        The answer is based on the last comparison of the clocks.
        """
        row = state.find(tx)
        return None if row.clock_jumped_at is None else row.clock_jumped_at + self._grace

    def is_late(self, row: GcState, now: int) -> bool:
        """Return whether the next comparison of the clocks is due."""
        return (
            row.boot_id != clock.boot_id()
            or not 0 <= now - row.clock_checked_at < self._grace / CHECKS_PER_GRACE
        )

    async def _read_clocks(self) -> tuple[GcState, ClockReading]:
        def work(tx: Transaction) -> tuple[GcState, int]:
            return state.find(tx), state.read_clock(tx)

        before = clock.boottime_us()
        row, now = await self._db.read(work)
        return row, ClockReading(now, clock.boot_id(), (before, clock.boottime_us()))

    async def _record(
        self, row: GcState, reading: ClockReading, jump: int, *, is_over: bool
    ) -> None:
        follows = row.boot_id == reading.boot_id and not jump
        offset = row.clock_offset if follows else reading.now - sum(reading.boottime) // 2

        def work(tx: Transaction) -> None:
            state.record_clock_check(tx, reading.boot_id, offset, reading.now)
            if jump:
                state.record_clock_jump(tx, reading.now, jump)
            elif is_over:
                state.clear_clock_jump(tx)

        await self._db.write(work, actor="gc", may_use_reserve=True)
