"""Batches: written in order and in the background, with bounded memory."""

import asyncio

import pytest

from registry.services.mirrors import batches
from registry.services.mirrors.batches import BatchWriter
from storage.errors import StoreFullError

pytestmark = pytest.mark.anyio


class Disk:
    """A slow disk. It writes when `free` is set, and fails with `error` if there is one."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.free = asyncio.Event()
        self.error: Exception | None = None

    async def write(self, data: bytes) -> None:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        self.written.append(data)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH", 4)


async def test_pieces_that_arrive_during_a_write_are_written_together() -> None:
    disk = Disk()
    async with BatchWriter(disk.write) as writer:
        await writer.put(b"a")
        await asyncio.sleep(0)
        for piece in (b"b", b"c", b"d"):
            await writer.put(piece)
        disk.free.set()
    assert disk.written == [b"a", b"bcd"]


async def test_put_waits_while_a_batch_waits() -> None:
    disk = Disk()
    async with BatchWriter(disk.write) as writer:
        await writer.put(b"a")
        await asyncio.sleep(0)
        await writer.put(b"bcde")
        waiting = asyncio.create_task(writer.put(b"f"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        disk.free.set()
        await waiting
    assert b"".join(disk.written) == b"abcdef"


async def put_all(disk: Disk, *pieces: bytes, error: Exception | None = None) -> None:
    """Write pieces with a pause after the first one, and raise `error` at the end."""
    async with BatchWriter(disk.write) as writer:
        for piece in pieces:
            await writer.put(piece)
            await asyncio.sleep(0)
        if error is not None:
            raise error


@pytest.mark.parametrize("pieces", [[b"a"], [b"a", b"b"], [b"a", b"bcde", b"f"]])
async def test_error_of_a_write_is_raised(pieces: list[bytes]) -> None:
    disk = Disk()
    disk.error = StoreFullError("full")
    asyncio.get_running_loop().call_later(0.01, disk.free.set)
    with pytest.raises(StoreFullError):
        await put_all(disk, *pieces)
    assert disk.written == []


async def test_nothing_is_being_written_after_an_error_of_the_block() -> None:
    disk = Disk()
    with pytest.raises(ValueError, match="broken"):
        await put_all(disk, b"a", error=ValueError("broken"))
    disk.free.set()
    await asyncio.sleep(0)
    assert disk.written == []
