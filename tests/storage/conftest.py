"""Stores for tests."""

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.digest import Digest
from storage.driver import Driver
from storage.factory import create_driver
from storage.keys import blob_key, new_generation
from storage.local.directory import StoreDirectory
from storage.local.driver import LocalDriver
from tests.storage.session_rows import SessionRowDriver


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return prepared store directories: creating them durably takes longer than most tests."""
    root = tmp_path_factory.mktemp("prepared") / "storage"
    StoreDirectory(root).prepare(create=True)
    return root


@pytest.fixture
def root(prepared: Path) -> Iterator[Path]:
    """Return the root of an empty store. A test that damages its layout creates one of its own."""
    yield prepared
    for path in (*prepared.glob("staging/*"), *prepared.glob("blobs/*/*/*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.fixture(params=["local", "memory", "s3"])
async def driver(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Driver]:
    """Yield each kind of store, empty and started. A new driver joins as a parameter."""
    bucket = request.getfixturevalue("bucket").settings() if request.param == "s3" else None
    store = create_driver(request.param, root=root, reserve=0, bucket=bucket)
    await store.start()
    yield store if store.supports_locking else SessionRowDriver(store)
    await store.close()


@pytest.fixture
async def local(root: Path) -> AsyncIterator[LocalDriver]:
    """Yield a store on disk, empty and started."""
    store = LocalDriver(root)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
def session() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def key() -> str:
    return blob_key(Digest.of(b"the name says nothing of the bytes here"), new_generation())


class Calls(list[tuple[str, str]]):
    """The calls on the disk: the function, and the file relative to the root of the store."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def note(self, name: str, what: int | str | Path) -> None:
        path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
        self.append((name, os.path.relpath(path, self._root)))


@pytest.fixture
def calls(root: Path, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record every call that changes the disk or makes a change durable."""
    calls = Calls(root)

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(what: int | Path, *args: Any) -> Any:
            calls.note(name, what)
            return real(what, *args)

        return call

    for name in ("pwrite", "ftruncate", "fsync", "fchmod", "rename", "unlink"):
        monkeypatch.setattr(os, name, noted(name))
    return calls
