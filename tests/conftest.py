"""Fixtures for all tests."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from registry.metadata import migrate
from tests.support.missing import missing
from tests.support.postgres import Cluster, find_binaries, run_cluster
from tests.support.seaweed import Bucket, Seaweed, find_weed, run_seaweed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let captured text cross from an xdist worker, also where a test logs what UTF-8 cannot."""
    report = yield
    report.sections[:] = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


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


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty registry's database, on each database there is."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/moorage.db"
        migrate.upgrade(url)
        yield url
    else:
        cluster: Cluster = request.getfixturevalue("postgres")
        with cluster.database() as url:
            yield url


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    weed = find_weed()
    if weed is None:
        missing("SeaweedFS")
    with run_seaweed(weed) as server:
        yield server


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    """A place of the test's own in a bucket."""
    return seaweed.bucket()
