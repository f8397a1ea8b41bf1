"""Fixtures for all tests."""

import contextlib
import faulthandler
import functools
import gc
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from _pytest import tmpdir
from _pytest.faulthandler import fault_handler_stderr_fd_key
from argon2 import PasswordHasher

from registry import logs
from registry.auth.credentials import passwords
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from tests.support import slow, tls_contexts
from tests.support.missing import missing
from tests.support.servers import launcher
from tests.support.servers.postgres import Cluster, find_binaries, run_cluster
from tests.support.servers.seaweed import Bucket, Seaweed, find_weed, run_seaweed

LOGGERS = (
    *("", "registry", "storage", "moorage", "moorage.access"),
    *("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access"),
)

SERVERS = {"postgres", "seaweed", "bucket", "s3"}
"""Fixtures and variants for which PostgreSQL or SeaweedFS is started."""

GRACE = 120.0
"""Time in seconds that a test has to end after its timeout, and a worker after its last test."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape captured text that UTF-8 cannot encode, so that an xdist worker can send it."""
    report = yield
    report.sections[:] = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_configure() -> None:
    tls_contexts.install()
    # httpx looks for it in each request, and then in all folders of sys.path.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
    tmpdir.rmtree = _remove_tree  # type: ignore[assignment, attr-defined]


def _remove_tree(path: str | os.PathLike[str], *, ignore_errors: bool = False) -> None:
    """Remove the folder of a test. Most have a store, of which 512 empty folders are half the work.

    shutil.rmtree opens each folder and lists it.
    """
    _remove_empty(path)
    shutil.rmtree(path, ignore_errors=ignore_errors)


def _remove_empty(path: str | os.PathLike[str]) -> None:
    """Remove the empty folders below a folder."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                try:
                    os.rmdir(entry.path)  # noqa: PTH106 - a Path takes longer
                except OSError:
                    _remove_empty(entry.path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow_tests = slow.read_list()
    for item in items:
        if slow.name_of(item.nodeid) in slow_tests:
            item.add_marker(pytest.mark.slow)
        variants = item.callspec.id.split("-") if hasattr(item, "callspec") else ()
        if SERVERS & {*getattr(item, "fixturenames", ()), *variants}:
            item.add_marker(pytest.mark.servers)
    if hasattr(config, "workerinput"):
        # At the end, no worker may be alone with a test that takes a minute.
        items.sort(key=_timeout_of, reverse=True)


def _timeout_of(item: pytest.Item) -> float:
    """Return the timeout of a test in seconds, if it has one of its own because it takes long."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker is not None else 0.0


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting all modules and tests while the tests run."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, object, object]:
    """End this process if a test runs long after its timeout, with the stack of each thread.

    asyncio catches the exception that a timeout raises inside a callback or a task, and a test
    that waits in others then spins forever. xdist starts another worker and names the test.
    """
    # Standard error itself is captured.
    stderr = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(settings.timeout + GRACE, exit=True, file=stderr)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_cancel_timer() -> Generator[None, object, object]:
    faulthandler.cancel_dump_traceback_later()
    return (yield)


def pytest_unconfigure() -> None:
    # Threads that tests left can keep the interpreter from ending.
    faulthandler.dump_traceback_later(GRACE, exit=True)
    launcher.close()


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """Restore the loggers after a test, because commands in this process reconfigure logging."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [
        (each, each.level, each.handlers[:], each.propagate, each.disabled) for each in loggers
    ]
    state = vars(logs._state).copy()
    yield
    vars(logs._state).update(state)
    for logger, level, handlers, propagate, disabled in before:
        if logger.level != level:  # setting it empties the caches of all loggers
            logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate, logger.disabled = propagate, disabled


@pytest.fixture(autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hash passwords in this process with little work; a hash takes longer than most tests.

    Servers and commands in processes of their own hash as users have it. A test file that is about
    the work of a hash overrides this fixture.
    """
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    # Its own, because what a test patches is restored before the other fixtures of the test end.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "PasswordHasher", lambda **_: cheap)
        yield


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
    """Return a SQLite file with the schema. Creating one takes longer than most tests."""
    path = tmp_path_factory.mktemp("sqlite") / "moorage.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of the database of an empty registry, for each supported database."""
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
    """Return two connections to one database, as two processes have them.

    On PostgreSQL, they can run six transactions at once.
    """
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
        # Read the S3 service model of boto3 once, not for each driver that a test opens.
        loader = functools.cache(botocore.session.create_loader)
        patch.setattr(botocore.session, "create_loader", loader)
        yield server


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    """Return a bucket prefix that only this test uses."""
    return seaweed.bucket()
