"""A registry before, during and after the move of its blobs from one store to another."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.app import compose
from registry.app.asgi import create_app
from registry.config import load
from registry.metadata.engine import migrate
from tests.api.conftest import Api, in_process
from tests.support.servers.seaweed import Seaweed

Start = Callable[[dict[str, str]], AbstractAsyncContextManager[Api]]

MIB = 1 << 20


@dataclass(frozen=True)
class Way:
    """The settings of the store to move from and of the store to move to, without their section."""

    old: dict[str, str]
    new: dict[str, str]

    @property
    def before(self) -> dict[str, str]:
        return _section("storage", self.old)

    @property
    def both(self) -> dict[str, str]:
        return _section("storage", self.new) | _section("old_storage", self.old)

    @property
    def after(self) -> dict[str, str]:
        return _section("storage", self.new)


def _section(name: str, keys: dict[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": value for key, value in keys.items()}


def as_variables(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings as environment variables."""
    return {f"MOORAGE_{key.upper().replace('.', '__')}": value for key, value in settings.items()}


def find_way(name: str, seaweed: Callable[[], Seaweed], tmp_path: Path) -> Way:
    """Return the settings of a move by its name: `local-s3` is from a folder to a bucket."""

    def place(driver: str, called: str) -> dict[str, str]:
        if driver == "local":
            root = str(tmp_path / f"store-{called}")
            return {"driver": driver, "name": called, "root": root, "min_free_space": "0B"}
        overrides = seaweed().bucket().overrides()
        keys = {key.removeprefix("storage."): value for key, value in overrides.items()}
        return {"driver": driver, "name": called, "part_size": "5MiB", **keys}

    old, new = name.split("-")
    return Way(place(old, "one"), place(new, "two"))


@pytest.fixture(params=["local-s3", "s3-local", "local-local"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    return find_way(request.param, lambda: request.getfixturevalue("seaweed"), tmp_path)


@pytest.fixture
def start(tmp_path: Path, database_url: str) -> Start:
    """Start an application with the given settings."""

    @asynccontextmanager
    async def started(overrides: dict[str, str]) -> AsyncIterator[Api]:
        overrides = {"database.url": database_url, **overrides}
        settings = load(config=None, data=tmp_path, overrides=overrides, environ={})
        opened = compose(settings)
        async with in_process(create_app(settings, opened)) as http:
            yield Api(http, opened, settings)

    return started


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Return a SQLite URL. These tests do not depend on the kind of database."""
    url = f"sqlite:///{tmp_path}/moorage.db"
    migrate.upgrade(url)
    return url
