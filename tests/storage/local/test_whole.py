"""Tests of all steps of a request in one job on the disk, which is then passed on."""

import os
from pathlib import Path

import pytest

from storage.digest import Digest, Hasher
from storage.errors import StagedSizeError, StoreUnavailableError, UploadLockedError
from storage.job_threads import Job, finish_jobs
from storage.local.driver import LocalDriver
from tests.storage.stored_files import mode_of

pytestmark = pytest.mark.anyio

DATA = b"small body"


class Next:
    """The thread to which a job is passed on: it notes the state of the file, and finishes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[bytes | None] = []

    def __call__(self, job: Job[str]) -> None:
        self.found.append(self.path.read_bytes() if self.path.exists() else None)
        finish_jobs([(job, "next", None)])


def staged_path(local: LocalDriver, session: str) -> Path:
    return local.directory.staging / session


async def test_bytes_are_synced_before_the_job_is_passed_on(
    local: LocalDriver, session: str, calls: list[tuple[str, str]]
) -> None:
    then, hasher = Next(staged_path(local, session)), Hasher("sha256")
    upload, result = await local.receive_whole(session, DATA, hasher, then)
    staged = f"staging/{session}"
    assert (result, then.found) == ("next", [DATA])
    assert calls == [("pwrite", staged), ("fsync", staged)]
    assert hasher.digest() == Digest.of(DATA)
    with pytest.raises(UploadLockedError):  # the claim lasts until the caller releases it
        await local.claim(session)
    await upload.release()
    await (await local.claim(session)).release()


async def test_an_object_is_durable_before_the_job_is_passed_on(
    local: LocalDriver, session: str, key: str, calls: list[tuple[str, str]]
) -> None:
    then = Next(local.path(key))
    upload, _ = await local.receive_whole(session, DATA, Hasher("sha256"), then)
    await upload.release()
    calls.clear()
    assert await local.publish_whole(session, len(DATA), key, then) == "next"
    assert then.found == [None, DATA]
    shard = str(Path(key).parent)
    assert calls == [("rename", f"staging/{session}"), ("fchmod", key), ("fsync", shard)]
    assert mode_of(local.path(key)) == 0o400
    assert not staged_path(local, session).exists()


async def test_other_bytes_than_expected_are_left_alone(
    local: LocalDriver, session: str, key: str
) -> None:
    then = Next(staged_path(local, session))
    upload = await local.claim(session)
    await upload.append(b"of another request", None)
    await upload.release()
    with pytest.raises(StagedSizeError):
        await local.receive_whole(session, DATA, Hasher("sha256"), then)
    with pytest.raises(StagedSizeError):
        await local.publish_whole(session, len(DATA), key, then)
    assert not then.found
    assert staged_path(local, session).read_bytes() == b"of another request"
    assert not local.path(key).exists()
    await (await local.claim(session)).release()


async def test_a_claimed_session_is_refused(local: LocalDriver, session: str, key: str) -> None:
    then = Next(staged_path(local, session))
    upload = await local.claim(session)
    with pytest.raises(UploadLockedError):
        await local.receive_whole(session, DATA, Hasher("sha256"), then)
    with pytest.raises(UploadLockedError):
        await local.publish_whole(session, 0, key, then)
    assert not then.found
    await upload.release()


async def test_bytes_that_cannot_be_synced_are_dropped(
    local: LocalDriver, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(5, "I/O error")

    then = Next(staged_path(local, session))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreUnavailableError):
            await local.receive_whole(session, DATA, Hasher("sha256"), then)
    assert not then.found
    assert not staged_path(local, session).exists()


async def test_an_existing_object_is_not_replaced(
    local: LocalDriver, session: str, key: str
) -> None:
    then = Next(staged_path(local, session))
    upload, _ = await local.receive_whole(session, DATA, Hasher("sha256"), then)
    await upload.release()
    local.path(key).write_bytes(b"published before")
    with pytest.raises(UploadLockedError):
        await local.publish_whole(session, len(DATA), key, then)
    assert local.path(key).read_bytes() == b"published before"
    assert len(then.found) == 1


async def test_an_error_of_the_next_thread_ends_the_claim(local: LocalDriver, session: str) -> None:
    def refuse(_job: Job[str]) -> None:
        raise RuntimeError("the database is closed")

    with pytest.raises(RuntimeError):
        await local.receive_whole(session, DATA, Hasher("sha256"), refuse)
    upload = await local.claim(session)
    assert upload.size == len(DATA)
    await upload.release()
