import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.blob_store import BlobStore
from storage.driver import Driver
from storage.errors import ObjectCorruptError, ObjectMissingError
from storage.local.driver import LocalDriver
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio

DATA = b"all of the bytes"


async def put(driver: Driver, session: str, key: str, data: bytes = DATA) -> None:
    upload = await driver.claim(session)
    await upload.append(data, None)
    await upload.finish(key)


async def read(blobs: BlobStore, key: str) -> bytes:
    reader = await blobs.open(key, len(DATA))
    try:
        return b"".join([piece async for piece in reader.read(0, reader.size)])
    finally:
        await reader.close()


async def test_whole_object(driver: Driver, session: str, key: str) -> None:
    await put(driver, session, key)
    blobs = BlobStore(driver)
    await blobs.check(key, len(DATA))
    assert await read(blobs, key) == DATA


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"!"])
async def test_wrong_length_is_damage(driver: Driver, session: str, key: str, data: bytes) -> None:
    await put(driver, session, key, data)
    blobs = BlobStore(driver)
    with pytest.raises(ObjectCorruptError):
        await blobs.check(key, len(DATA))
    with pytest.raises(ObjectCorruptError):
        await blobs.open(key, len(DATA))


async def test_missing_object(driver: Driver, key: str) -> None:
    blobs = BlobStore(driver)
    with pytest.raises(ObjectMissingError):
        await blobs.check(key, 0)
    with pytest.raises(ObjectMissingError):
        await blobs.open(key, 0)


async def test_delete(driver: Driver, session: str, key: str) -> None:
    await put(driver, session, key)
    blobs = BlobStore(driver)
    await blobs.delete(key)
    await blobs.delete(key)
    with pytest.raises(ObjectMissingError):
        await blobs.check(key, len(DATA))


def set_size(path: Path, size: int) -> None:
    path.chmod(0o600)  # stored files are read-only
    os.truncate(path, size)


def truncate(path: Path) -> None:
    set_size(path, len(DATA) - 1)


def empty(path: Path) -> None:
    set_size(path, 0)


def extend(path: Path) -> None:
    set_size(path, len(DATA) + 1)


def remove(path: Path) -> None:
    path.unlink()


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_folder_of_that_size(path: Path) -> None:
    """Create a directory whose size in bytes is that of the blob or more."""
    put_folder(path)
    for n in range(100):
        (path / f"{n:0200}").touch()


def put_link(path: Path) -> None:
    """Create a symbolic link to the right bytes. The store does not vouch for its target."""
    shutil.copy(path, path.parent / "elsewhere")
    path.unlink()
    path.symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (truncate, ObjectCorruptError),
        (empty, ObjectCorruptError),
        (extend, ObjectCorruptError),
        (remove, ObjectMissingError),
        (put_folder, ObjectMissingError),
        (put_folder_of_that_size, ObjectMissingError),
        (put_link, ObjectMissingError),
    ],
)
async def test_harmed_file_never_passes_for_the_blob(
    local: LocalDriver,
    session: str,
    key: str,
    harm: Callable[[Path], None],
    error: type[Exception],
) -> None:
    await put(local, session, key)
    blobs = BlobStore(local)
    assert await read(blobs, key) == DATA  # the bytes before the damage
    path = local.path(key)
    harm(path)
    size = path.stat().st_size if path.is_dir() else len(DATA)
    with pytest.raises(error):
        await blobs.check(key, size)
    with pytest.raises(error):
        await blobs.open(key, size)
    assert list_open_files(path.parent) == []
