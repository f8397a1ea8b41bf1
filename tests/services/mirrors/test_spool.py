"""Temporary files: no names, a limit in all, and errors of the disk."""

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from registry.services.mirrors.spool import Spool, SpoolFile
from storage.digest import Digest, Hasher
from storage.errors import StoreFullError, StoreUnavailableError
from tests.support.kit import list_open_files

pytestmark = pytest.mark.anyio


async def open_file(spool: Spool, size: int) -> SpoolFile:
    file = await spool.open(size)
    assert file is not None
    return file


async def test_reads_by_position_while_it_grows(tmp_path: Path) -> None:
    file = await open_file(Spool(tmp_path, 100), 6)
    hasher = Hasher("sha256")
    await file.append(b"abc", hasher)
    assert await file.read(1, 10) == b"bc"
    await file.append(b"def", hasher)
    assert await file.read(2, 2) == b"cd"
    assert hasher.digest() == Digest.of(b"abcdef")
    assert (await file.stat()).size == 6
    assert list(tmp_path.iterdir()) == []
    assert len(list_open_files(tmp_path)) == 1
    await file.close()
    await file.close()
    assert list_open_files(tmp_path) == []


async def test_total_is_limited(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    one, two = await open_file(spool, 6), await open_file(spool, 4)
    assert await spool.open(1) is None
    await one.close()
    assert await spool.open(7) is None
    await (await open_file(spool, 6)).close()
    await two.close()


async def test_missing_folder_takes_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "missing", 10)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="ENOENT"):
            await spool.open(10)


async def test_full_disk_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "full")

    file = await open_file(Spool(tmp_path, 10), 10)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreFullError):
        await file.append(b"abc")
    assert file.size == 0
    await file.close()
