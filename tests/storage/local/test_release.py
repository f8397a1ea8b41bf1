"""Release of descriptors, threads and locks of the local driver."""

import asyncio
import gc
import os
import random
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from storage.errors import UploadLockedError
from storage.local.driver import LocalDriver
from storage.local.upload import LocalUpload
from tests.storage.local.helpers import ROOT, Gate, a_moment
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio


async def test_descriptors_return_to_the_baseline_after_aborted_uploads(
    local: LocalDriver,
) -> None:
    await local.check()
    gc.collect()  # closes connections left by other tests
    before = list_open_files(local.path(""))
    chance = random.Random(1)
    sessions = [str(uuid.uuid4()) for _ in range(200)]

    async def request(session: str) -> None:
        upload = await local.claim(session)
        try:
            while True:
                await upload.append(bytes(1000), None)
        finally:
            await upload.release()

    async def abort(session: str) -> None:
        task = asyncio.create_task(request(session))
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        await asyncio.sleep(chance.uniform(0, 0.02))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await asyncio.gather(*(abort(session) for session in sessions))
    assert list_open_files(local.path("")) == before
    for session in sessions:  # no lock is left
        await (await local.claim(session)).abort()


async def test_closing_waits_for_threads_and_not_the_loop(
    root: Path, session: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        gate.wait()
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    driver = LocalDriver(root)
    upload = await driver.claim(session)
    writing = asyncio.create_task(upload.append(b"slow", None))
    await gate.reached()
    closing = asyncio.create_task(driver.close())
    await a_moment()
    assert not closing.done()
    gate.open()
    await writing
    await closing
    assert (root / "staging" / session).read_bytes() == b"slow"
    os.close(upload._fd)


HOLD = """
import asyncio, sys, time
from pathlib import Path
from storage.local.driver import LocalDriver

async def hold() -> None:
    driver = LocalDriver(Path(sys.argv[1]))
    await driver.start()
    upload = await driver.claim(sys.argv[2])
    await upload.append(b"theirs", None)
    print("held", flush=True)
    time.sleep(60)

asyncio.run(hold())
"""


async def test_hold_of_another_process_ends_with_it(
    local: LocalDriver, root: Path, session: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(root), session, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"
        for _ in range(2):
            with pytest.raises(UploadLockedError):
                await local.claim(session)
        assert await local.list_staged() == [session]
    finally:
        process.kill()
        await process.communicate()
    upload = await local.claim(session)
    assert upload.size == len(b"theirs")
    await upload.release()


Deed = Callable[[LocalUpload], Awaitable[None]]


@pytest.mark.parametrize("deed", ["append", "truncate", "sync", "discard", "finish"])
async def test_release_during_another_call_waits_for_its_turn(
    local: LocalDriver, session: str, key: str, gate: Gate, deed: str
) -> None:
    """Of two concurrent calls on one handle the second never closes a file that the first uses."""
    upload = await local.claim(session)
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, at: int) -> int:
        gate.wait()
        return real(fd, data, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        writing = asyncio.create_task(upload.append(b"first", None))
        await gate.reached()
        releasing = asyncio.create_task(upload.release())
        await a_moment()
        assert not releasing.done()
        gate.open()
        await writing
        await releasing
    deeds: dict[str, Deed] = {
        "append": lambda upload: upload.append(b"late", None),
        "truncate": lambda upload: upload.truncate(0),
        "sync": LocalUpload.sync,
        "discard": LocalUpload.abort,
        "finish": lambda upload: upload.finish(key),
    }
    with pytest.raises(UploadLockedError):
        await deeds[deed](upload)
    again = await local.claim(session)
    assert again.size == len(b"first")
    await again.release()
