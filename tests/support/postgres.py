"""A PostgreSQL cluster of the tests' own, in a temporary folder, ended with the session."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from registry.metadata import migrate

_CANDIDATES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find_binaries() -> Path | None:
    """The folder of initdb and postgres."""
    if _CANDIDATES:
        return _CANDIDATES[0]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A running server. Databases are copies of one that has the schema already."""

    def __init__(self, folder: Path, port: int, binaries: Path) -> None:
        self.folder = folder
        self.port = port
        self.binaries = binaries
        self._admin = sa.create_engine(
            self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        with self._admin.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE moorage_template"))
        migrate.upgrade(self.url("moorage_template"))

    @contextlib.contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """The URL of a new database, dropped afterwards."""
        name = f"moorage_{uuid.uuid4().hex}"
        template = "template0" if empty else "moorage_template"
        with self._admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        try:
            yield self.url(name)
        finally:
            with self._admin.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@contextlib.contextmanager
def run_cluster(binaries: Path) -> Iterator[Cluster]:
    """A cluster on a free loopback port."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        subprocess.run(
            _as_postgres(
                [
                    *(str(binaries / "initdb"), "-D", str(data), "-U", "postgres"),
                    *("-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
                ]
            ),
            check=True,
            capture_output=True,
            cwd=folder,
        )
        port = free_port()
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=200"
        control = [str(binaries / "pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-w"]
        subprocess.run(
            _as_postgres([*control, "-o", options, "start"]), check=True, stdout=subprocess.DEVNULL
        )
        try:
            cluster = Cluster(folder, port, binaries)
            cluster.prepare()
            yield cluster
        finally:
            subprocess.run(
                _as_postgres([*control, "-m", "immediate", "stop"]),
                check=True,
                stdout=subprocess.DEVNULL,
            )
    finally:
        shutil.rmtree(folder)
