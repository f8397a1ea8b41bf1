"""Stores to try things on."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.digest import Digest
from storage.driver import Driver
from storage.keys import blob_key, new_generation
from storage.local import LocalDriver
from storage.open import open_driver


@pytest.fixture(params=["local", "memory"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    """Each store there is, empty and started. A new one joins as a parameter."""
    store = open_driver(request.param, root=tmp_path / "storage", reserve=0)
    await store.start()
    yield store
    await store.close()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalDriver]:
    """A store on disk, empty and started."""
    store = LocalDriver(tmp_path / "storage")
    await store.start()
    yield store
    await store.close()


@pytest.fixture
def session() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def key() -> str:
    return blob_key(Digest.of(b"the name says nothing of the bytes here"), new_generation())
