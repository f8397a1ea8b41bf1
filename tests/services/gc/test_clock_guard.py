"""Garbage collection deletes nothing because of a clock jump."""

import pytest

from registry.metadata import tables
from registry.metadata.engine.transaction import Transaction
from registry.metadata.gc import state
from registry.metadata.gc.state import GcState
from registry.services.gc.clock_guard import ClockReading, find_jump
from tests.services.gc.conftest import GRACE, Opening, Yard
from tests.support.clock import Clocks

pytestmark = pytest.mark.anyio

DAY = 86_400_000_000
ROW = GcState("boot", 1000, 5000, None, 0)
"""The database clock was 1000 ahead of the machine's at first, and read 5000 at the last check."""


@pytest.mark.parametrize(
    ("boot", "steady", "now", "jump"),
    [
        ("boot", 4100, 5100, 0),  # both clocks advanced equally
        ("boot", 4100, 5199, 0),  # a jump of just under a grace period
        ("boot", 4100, 5201, 101),
        ("boot", 9100, 9999, -101),
        ("boot", 4100 + DAY, 5100 + DAY, 0),  # no check for a day, and a day passed
        ("other", 1, 5100, 0),  # another machine, soon after
        ("other", 1, 5101, 101),  # another machine, and the time between is unknown
        ("other", 1, 4899, -101),
    ],
)
def test_what_counts_as_a_jump(boot: str, steady: int, now: int, jump: int) -> None:
    assert find_jump(ROW, ClockReading(now, boot, (steady, steady)), 100) == jump


def test_a_look_that_took_long_proves_nothing() -> None:
    assert find_jump(ROW, ClockReading(5100, "boot", (3900, 4500)), 100) == 0
    assert find_jump(ROW, ClockReading(5800, "boot", (3900, 4500)), 100) == 300


def test_the_first_look_finds_nothing() -> None:
    row = GcState("", 0, 0, None, 0)
    assert find_jump(row, ClockReading(5000, "boot", (1, 1)), 100) == 0


@pytest.mark.parametrize("days", [30, -30])
async def test_nothing_goes_for_a_grace_after_a_jump(yard: Yard, clocks: Clocks, days: int) -> None:
    used, _ = await yard.push_image("app", "latest")
    lone = await yard.push_blob("app", b"lone")
    await yard.collect()  # reads the clocks
    clocks.jump(days * 86_400)
    clocks.pass_by(60)
    assert (await yard.collect()).examined == 0
    status = await yard.opened.registry.collector.get_status()
    assert status.clock_jump_seconds == pytest.approx(days * 86_400, abs=60)
    assert status.paused_until == clocks.now() + int((GRACE) * 1_000_000)
    assert await yard.has_blob("app", lone)
    clocks.pass_by(GRACE - 60)
    assert (await yard.collect()).blobs == 0
    clocks.pass_by(120)
    assert (await yard.collect()).blobs == 1
    assert (await yard.opened.registry.collector.get_status()).paused_until is None
    assert await yard.has_manifest("app", used)


async def test_without_a_jump_it_goes(yard: Yard, clocks: Clocks) -> None:
    """The control: the same time passes without a jump."""
    await yard.push_blob("app", b"lone")
    await yard.collect()
    clocks.pass_by(GRACE + 60)
    assert (await yard.collect()).blobs == 1


async def test_what_was_queued_by_a_clock_far_ahead_does_not_wait_for_it(
    yard: Yard, clocks: Clocks
) -> None:
    await yard.collect()
    clocks.jump(3650 * 86_400)
    await yard.push_blob("app", b"lone")
    clocks.jump(-3650 * 86_400)
    clocks.pass_by(60)
    await yard.collect()  # the grace period starts when the collector notices
    clocks.pass_by(GRACE - 60)
    assert (await yard.collect()).blobs == 0
    clocks.pass_by(120)
    assert (await yard.collect()).blobs == 1


async def test_a_machine_that_was_off_for_long_waits(yard: Yard, clocks: Clocks) -> None:
    await yard.push_blob("app", b"lone")
    await yard.collect()
    clocks.restart()
    clocks.pass_by(3 * GRACE)
    assert (await yard.collect()).blobs == 0
    clocks.pass_by(GRACE + 60)
    assert (await yard.collect()).blobs == 1


async def test_the_clocks_are_compared_although_nothing_is_due(
    open_yard: Opening, clocks: Clocks
) -> None:
    async with open_yard() as yard:
        collector = yard.opened.registry.collector
        assert await collector.is_due()
        await collector.run()
        assert not await collector.is_due()
        clocks.pass_by(GRACE / 8 + 1)
        assert await collector.is_due()
        await collector.run()
        (row,) = await yard.list_rows(tables.gc_state)
        assert row.clock_checked_at == clocks.now()


async def test_the_time_is_the_databases(yard: Yard) -> None:
    """The time is not read from this process, which may run on another machine."""

    def work(tx: Transaction) -> int:
        tx.now = 1
        return state.read_clock(tx)

    embedded = yard.opened.database.embedded
    assert (await yard.opened.database.read(work) == 1) is embedded
