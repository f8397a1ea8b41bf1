"""A registry whose stored bytes are corrupted behind its back."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from registry.app import Runtime, compose
from registry.app.asgi import create_app
from registry.config import load
from registry.metadata.content import blobs
from registry.metadata.content.blobs import BlobRow
from registry.metadata.engine import migrate
from registry.services.maintenance.fsck import FindingKind, RepairAction, Report
from storage.digest import Digest
from storage.driver import Driver
from storage.local.driver import LocalDriver
from storage.s3.driver import S3Driver
from tests.api.conftest import Api, in_process
from tests.support.servers.postgres import Cluster

Start = Callable[..., AbstractAsyncContextManager[Api]]

NAME = "team/app"

one_place = pytest.mark.parametrize("place", ["sqlite-local"], indirect=True)
"""For tests that depend neither on the database nor on the store."""


@pytest.fixture(params=["sqlite-local", "postgres-s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the settings of a database and a store."""
    store = {"storage.min_free_space": "0B", "storage.part_size": "5MiB"}
    if request.param == "sqlite-local":
        url = f"sqlite:///{tmp_path}/moorage.db"
        migrate.upgrade(url)
        yield {"database.url": url, **store}
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    bucket = request.getfixturevalue("bucket").overrides()
    with cluster.database() as url:
        yield {"database.url": url, "storage.driver": "s3", **bucket, **store}


@pytest.fixture
def start(tmp_path: Path, place: dict[str, str]) -> Start:
    """Start an application with the given settings. It runs no jobs: the test runs them."""

    @asynccontextmanager
    async def started(**overrides: str) -> AsyncIterator[Api]:
        keys = {key.replace("__", "."): value for key, value in overrides.items()}
        overrides = {**place, "jobs.in_serve": "false", **keys}
        settings = load(config=None, data=tmp_path, overrides=overrides, environ={})
        opened = compose(settings)
        async with in_process(create_app(settings, opened)) as http:
            yield Api(http, opened, settings)

    return started


@pytest.fixture
async def api(start: Start) -> AsyncIterator[Api]:
    async with start() as started:
        yield started


async def find_row(opened: Runtime, digest: Digest) -> BlobRow:
    row = await opened.database.read(lambda tx: blobs.find_anywhere(tx, digest))
    assert row is not None
    return row


async def write(driver: Driver, key: str, data: bytes) -> None:
    """Put bytes under a key, whatever it held before."""
    if isinstance(driver, LocalDriver):
        driver.path(key).unlink(missing_ok=True)
        driver.path(key).write_bytes(data)
    else:
        assert isinstance(driver, S3Driver)
        await driver.delete(key)
        await driver._bucket.put(key, data)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "short": lambda data: data[:-1],
    "longer": lambda data: data + b"!",
    "gone": lambda _data: None,
}


async def damage(driver: Driver, key: str, data: bytes, how: str) -> None:
    """Corrupt a blob as a disk or a bucket may."""
    spoiled = DAMAGES[how](data)
    if spoiled is None:
        await driver.delete(key)
    else:
        await write(driver, key, spoiled)


async def scrub(opened: Runtime) -> None:
    """Run a whole pass at full speed."""
    await opened.registry.scrub.begin(restart=True)
    while await opened.registry.scrub.run(0):
        pass


async def list_damaged(opened: Runtime) -> dict[str, list[str]]:
    """Return the blobs known to be corrupt, and the tags that they break."""
    return {
        str(each.blob.digest): [f"{name}:{tag}" for name, tag in each.tags]
        async for each in opened.registry.scrub.iter_damaged(100)
    }


async def fsck(opened: Runtime, *, repair: bool = False, grace: float = 0) -> Report:
    report = Report()
    await opened.registry.fsck.run(report, repair=repair, grace=grace)
    return report


def describe(report: Report) -> list[tuple[FindingKind, str, RepairAction]]:
    return [(each.kind, each.key, each.action) for each in report.findings]
