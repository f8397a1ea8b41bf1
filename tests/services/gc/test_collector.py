"""Schedule and speed of the collector."""

import time

import pytest

from registry import clock
from registry.services.gc.settings import GcSettings
from tests.services.gc.conftest import GRACE, Opening

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("window", "opened"),
    [
        (None, [0, 59, 60, 179, 180, 720, 1319, 1320, 1439]),
        ((0, 1440), [0, 59, 60, 179, 180, 720, 1319, 1320, 1439]),
        ((60, 180), [60, 179]),
        ((1320, 60), [0, 59, 1320, 1439]),
    ],
)
def test_the_part_of_the_day(window: tuple[int, int] | None, opened: list[int]) -> None:
    rules = GcSettings(window=window)
    minutes = [0, 59, 60, 179, 180, 720, 1319, 1320, 1439]
    assert [minute for minute in minutes if rules.is_open(minute)] == opened


async def test_the_job_keeps_to_it_and_the_command_does_not(
    open_yard: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_yard({"gc.window": "22:00-06:00"}) as yard:
        collector = yard.opened.registry.collector
        monkeypatch.setattr(clock, "minute_of_day", lambda: 720)
        await collector.run()
        await yard.push_blob("app", b"one")
        await yard.age(GRACE)
        assert not await collector.is_due()
        assert await collector.run() == 0
        assert len(yard.list_stored()) == 1
        monkeypatch.setattr(clock, "minute_of_day", lambda: 1320)
        assert await collector.is_due()
        assert await collector.run() > 0
        monkeypatch.setattr(clock, "minute_of_day", lambda: 720)
        await yard.push_blob("app", b"two")
        await yard.age(GRACE)
        assert (await yard.collect()).blobs > 0


@pytest.mark.parametrize("pace", [{"gc.limit_deletions": "20"}, {"gc.limit_rate": "80B"}])
async def test_no_more_goes_than_the_pace(open_yard: Opening, pace: dict[str, str]) -> None:
    async with open_yard(pace) as yard:
        for number in range(21):
            await yard.push_blob("app", f"{number:04}".encode())
        await yard.age(GRACE)
        collector = yard.opened.registry.collector
        began = time.monotonic()
        while (await collector.get_status()).due:
            await collector.run()
        owed = max(collector._objects.delay, collector._bytes.delay)
        assert time.monotonic() - began + owed >= 1.0
