"""Tests of concurrent requests of one session, and of requests that end before their thread."""

import asyncio
import contextlib
import fcntl
import gc
import os
import random
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import aiofiles
import pytest

from storage.errors import UploadLockedError
from storage.local import threads
from storage.local import upload as upload_module
from storage.local.driver import LocalDriver
from storage.local.upload import LocalUpload
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent.parent

PATIENCE = 10.0
"""Seconds after which a blocked thread continues, so that a failed test ends."""


class Gate:
    """A barrier that holds back the first thread that reaches it."""

    def __init__(self) -> None:
        self._used = threading.Lock()
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait(self) -> None:
        """Block the calling thread if it is the first."""
        if self._used.acquire(blocking=False):
            self._reached.set()
            assert self._opened.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


async def a_moment() -> None:
    """Give other tasks and threads some time to run."""
    await asyncio.sleep(0.05)


class TestOpenedBeforePublication:
    """The order of a claim: open, publication by another request, flock, comparison of inodes."""

    async def meet(
        self, local: LocalDriver, session: str, gate: Gate, between: Awaitable[None]
    ) -> LocalUpload:
        """Claim `session`, and run `between` when the file is open but not locked yet."""
        real = fcntl.flock

        def flock(fd: int, operation: int) -> None:
            gate.wait()
            real(fd, operation)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fcntl, "flock", flock)
            late = asyncio.create_task(local.claim(session))
            await gate.reached()
            await between
            gate.open()
            return await late

    async def test_published(self, local: LocalDriver, session: str, key: str, gate: Gate) -> None:
        upload = await local.claim(session)
        await upload.append(b"verified", None)
        with pytest.raises(UploadLockedError):
            await self.meet(local, session, gate, upload.finish(key))
        assert local.path(key).read_bytes() == b"verified"
        await (await local.claim(session)).release()  # no lock is left

    async def test_without_comparison_the_blob_changes(
        self,
        local: LocalDriver,
        session: str,
        key: str,
        gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The control of the test above: a lock alone does not help."""

        def lock(fd: int, _path: Path) -> None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

        monkeypatch.setattr(upload_module, "flock_if_still_linked", lock)
        upload = await local.claim(session)
        await upload.append(b"verified", None)
        late = await self.meet(local, session, gate, upload.finish(key))
        await late.append(b", then changed", None)
        assert local.path(key).read_bytes() == b"verified, then changed"
        await late.release()

    async def test_published_and_claimed_again(
        self, local: LocalDriver, session: str, key: str, gate: Gate
    ) -> None:
        """Now there is a file of that name again, but another one."""
        upload = await local.claim(session)
        await upload.append(b"verified", None)
        others: list[LocalUpload] = []

        async def publish_and_claim() -> None:
            await upload.finish(key)
            others.append(await local.claim(session))

        with pytest.raises(UploadLockedError):
            await self.meet(local, session, gate, publish_and_claim())
        await others[0].append(b"other", None)
        await others[0].release()
        assert local.path(key).read_bytes() == b"verified"

    async def test_discarded(self, local: LocalDriver, session: str, gate: Gate) -> None:
        upload = await local.claim(session)
        with pytest.raises(UploadLockedError):
            await self.meet(local, session, gate, upload.abort())

    async def test_released(self, local: LocalDriver, session: str, gate: Gate) -> None:
        """The control of all: the same file is still there, and the claim succeeds."""
        upload = await local.claim(session)
        await upload.append(b"staged", None)
        late = await self.meet(local, session, gate, upload.release())
        assert late.size == len(b"staged")
        await late.release()


class TestCancelledWrite:
    """A request whose coroutine ends while its thread is about to write."""

    LATE = b"bytes of the cancelled request"

    async def write_late(
        self, local: LocalDriver, session: str, gate: Gate, tmp_path: Path, *, careless: bool
    ) -> tuple[bool, list[bytes]]:
        """Return whether the request ended before its thread, and the content of other files."""
        real = os.pwrite
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            gate.wait()
            try:
                return real(fd, data, at)
            finally:
                loop.call_soon_threadsafe(done.set)

        upload = await local.claim(session)
        if careless:
            upload._mutex = contextlib.nullcontext()  # type: ignore[assignment]

        async def request() -> None:
            try:
                await upload.append(self.LATE, None)
            finally:
                await upload.release()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            task = asyncio.create_task(request())
            await gate.reached()
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE if careless else 0.1)
            ended_first = task.done()
            # New files get the lowest free descriptors.
            others = [tmp_path / str(number) for number in range(20)]
            with contextlib.ExitStack() as stack:
                for other in others:
                    stack.enter_context(other.open("wb"))
                gate.open()
                await done.wait()
                with pytest.raises(asyncio.CancelledError):
                    await task
        return ended_first, [other.read_bytes() for other in others]

    async def test_hits_no_other_file(
        self, local: LocalDriver, session: str, gate: Gate, tmp_path: Path, root: Path
    ) -> None:
        before = list_open_files(local.path(""))
        ended_first, others = await self.write_late(local, session, gate, tmp_path, careless=False)
        assert not ended_first
        assert others == [b""] * 20
        assert (root / "staging" / session).read_bytes() == self.LATE
        assert list_open_files(local.path("")) == before

    async def test_without_waiting_it_hits_another_file(
        self,
        local: LocalDriver,
        session: str,
        gate: Gate,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The control of the test above: a plain await, and a descriptor closed after it."""

        async def plain(work: Awaitable[T], undo: object = None) -> T:
            del undo
            return await work

        monkeypatch.setattr(threads, "run_to_completion", plain)
        ended_first, others = await self.write_late(local, session, gate, tmp_path, careless=True)
        assert ended_first
        assert sorted(others) == [b""] * 19 + [self.LATE]

    async def test_hold_lasts_as_long_as_its_thread(
        self, local: LocalDriver, session: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.pwrite

        def pwrite(fd: int, data: memoryview, at: int) -> int:
            gate.wait()
            return real(fd, data, at)

        monkeypatch.setattr(os, "pwrite", pwrite)
        upload = await local.claim(session)

        async def request() -> None:
            try:
                await upload.append(b"late", None)
            finally:
                await upload.release()

        task = asyncio.create_task(request())
        await gate.reached()
        task.cancel()
        await a_moment()
        with pytest.raises(UploadLockedError):
            await local.claim(session)
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await local.claim(session)
        assert again.size == len(b"late")
        await again.release()


class TestCancelledOpening:
    """A descriptor without a receiver is closed, and its lock is released."""

    async def test_claim(
        self, local: LocalDriver, session: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = fcntl.flock

        def flock(fd: int, operation: int) -> None:
            gate.wait()
            real(fd, operation)

        await local.check()
        before = list_open_files(local.path(""))
        monkeypatch.setattr(fcntl, "flock", flock)
        claiming = asyncio.create_task(local.claim(session))
        await gate.reached()
        claiming.cancel()
        await a_moment()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await claiming
        assert list_open_files(local.path("")) == before
        await (await local.claim(session)).release()

    async def test_object(
        self, local: LocalDriver, session: str, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await (await local.claim(session)).finish(key)
        opened: list[aiofiles.threadpool.binary.AsyncFileIO] = []
        go_on = asyncio.Event()
        real = aiofiles.open

        async def slow(path: Path, *_: object, **__: object) -> object:
            opened.append(await real(path, "rb", buffering=0))
            await go_on.wait()
            return opened[0]

        monkeypatch.setattr(aiofiles, "open", slow)
        opening = asyncio.create_task(local.open(key))
        while not opened:
            await asyncio.sleep(0.001)
        opening.cancel()
        await a_moment()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert opened[0].closed


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
