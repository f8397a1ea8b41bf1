"""Databases and folders for registries, and a clock that the tests set."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import clock
from registry.metadata.engine import migrate
from tests.scenarios.model.machine import Place
from tests.scenarios.model.world import Clock
from tests.support.clock import use_transaction_time
from tests.support.servers.postgres import Cluster

MEMORY = Path("/dev/shm")  # noqa: S108


@pytest.fixture
def embedded(tmp_path: Path) -> Place:
    template = tmp_path / "template.db"
    migrate.upgrade(f"sqlite:///{template}")

    @contextlib.contextmanager
    def embed() -> Iterator[tuple[str, Path]]:
        with _folder(tmp_path) as folder:
            shutil.copyfile(template, folder / "moorage.db")
            yield f"sqlite:///{folder}/moorage.db", folder

    return embed


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        found: Place = request.getfixturevalue("embedded")
        return found
    cluster: Cluster = request.getfixturevalue("postgres")

    @contextlib.contextmanager
    def serve() -> Iterator[tuple[str, Path]]:
        with _folder(tmp_path) as folder, cluster.database() as url:
            yield url, folder

    return serve


@contextlib.contextmanager
def _folder(tmp_path: Path) -> Iterator[Path]:
    # Syncing is not under test: use a folder in memory if there is one.
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def movable_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that the whole registry uses."""
    made = Clock()
    monkeypatch.setattr(clock, "now_us", made.now)
    monkeypatch.setattr(clock, "boottime_us", made.now)
    use_transaction_time(monkeypatch)
    return made
