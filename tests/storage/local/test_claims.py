"""Claims of the local driver under cancellation."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest

from storage.errors import UploadLockedError
from storage.local import threads
from storage.local import upload as upload_module
from storage.local.driver import LocalDriver
from storage.local.reader import SMALL_READ
from storage.local.upload import LocalUpload
from tests.storage.local.helpers import PATIENCE, Gate, T, a_moment
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio


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
        self,
        local: LocalDriver,
        session: str,
        key: str,
        gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        upload = await local.claim(session)
        await upload.append(bytes(SMALL_READ + 1), None)
        await upload.finish(key)
        real = os.fstat

        def fstat(fd: int) -> os.stat_result:
            gate.wait()
            return real(fd)

        monkeypatch.setattr(os, "fstat", fstat)
        opening = asyncio.create_task(local.open(key))
        await gate.reached()
        opening.cancel()
        await a_moment()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert list_open_files(local.path(key)) == []
