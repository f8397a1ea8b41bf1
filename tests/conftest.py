"""Fixtures for all tests."""

import functools
import logging
import shutil
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import botocore.session
import pytest

from registry.metadata import migrate
from registry.metadata.database import Database
from tests.support.missing import missing
from tests.support.postgres import Cluster, find_binaries, run_cluster
from tests.support.seaweed import Bucket, Seaweed, find_weed, run_seaweed

LOGGERS = (
    *("", "registry", "storage", "moorage", "moorage.access"),
    *("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"),
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let captured text cross from an xdist worker, also where a test logs what UTF-8 cannot."""
    report = yield
    report.sections[:] = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Commands that run in this process set logging up for a process of their own."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [
        (each, each.level, each.handlers[:], each.propagate, each.disabled) for each in loggers
    ]
    yield
    for logger, level, handlers, propagate, disabled in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    binaries = find_binaries()
    if binaries is None:
        missing("PostgreSQL")
    with run_cluster(binaries) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has the schema already: to make one takes longer than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "moorage.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty registry's database, on each database there is."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        shutil.copyfile(template, tmp_path / "moorage.db")
        yield f"sqlite:///{tmp_path}/moorage.db"
    else:
        cluster: Cluster = request.getfixturevalue("postgres")
        with cluster.database() as url:
            yield url


@pytest.fixture
async def database(database_url: str, anyio_backend: str) -> AsyncIterator[Database]:
    del anyio_backend
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def replicas(database_url: str, anyio_backend: str) -> AsyncIterator[list[Database]]:
    """Two processes' worth of one database: on PostgreSQL six transactions run at once."""
    del anyio_backend
    opened = [Database(database_url), Database(database_url)]
    yield opened
    for database in opened:
        await database.close()


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    weed = find_weed()
    if weed is None:
        missing("SeaweedFS")
    with pytest.MonkeyPatch.context() as patch, run_seaweed(weed) as server:
        # What boto3 knows of S3 is read once, not for each driver that a test opens.
        loader = functools.cache(botocore.session.create_loader)
        patch.setattr(botocore.session, "create_loader", loader)
        yield server


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    """A place of the test's own in a bucket."""
    return seaweed.bucket()
