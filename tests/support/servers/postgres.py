"""A PostgreSQL cluster for tests, in a temporary folder, stopped at the end of the session."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy as sa

from registry.metadata.engine import migrate
from tests.support.servers import spare_databases
from tests.support.servers.spare_databases import Content, Description

COPIED = "STRATEGY file_copy"
"""Option of CREATE DATABASE. Without fsync, it takes half the time of the default, which logs."""

_CANDIDATES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def find_binaries() -> Path | None:
    """Return the folder of initdb and postgres, or None if they are not installed."""
    if _CANDIDATES:
        return _CANDIDATES[0]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Running server. Its databases are copies of a template with the schema."""

    def __init__(self, folder: Path, port: int, binaries: Path) -> None:
        self.folder = folder
        self.port = port
        self.binaries = binaries
        self._data = folder / "data"
        self._content: Content | None = None
        self._spare: list[tuple[str, Description]] = []
        self._admin = sa.create_engine(
            self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c max_connections=200"
        # Only a crash of the machine needs what is off. Vacuuming would delay copies of databases.
        off = " ".join(f"-c {name}=off" for name in ("fsync", "full_page_writes", "autovacuum"))
        self._control("-o", f"{options} {off}", "start")

    def stop(self, mode: str = "fast", *, wait: bool = True) -> None:
        self._control("-m", mode, *([] if wait else ["-W"]), "stop")

    def wait_until_stopped(self) -> None:
        while (self._data / "postmaster.pid").exists():
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server and all its processes, as if its container died."""
        parent = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in [parent, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # The lock file is in use while any of the processes is alive.
        while any(Path(f"/proc/{pid}").exists() for pid in [parent, *children]):
            time.sleep(0.01)

    def _control(self, *arguments: str) -> None:
        command = [str(self.binaries / "pg_ctl"), "-D", str(self._data)]
        command += ["-l", str(self.folder / "log"), "-w", *arguments]
        subprocess.run(as_postgres(command), check=True, stdout=subprocess.DEVNULL)

    def promote(self) -> None:
        """Promote this standby to a primary."""
        self._control("promote")

    def catch_up(self, primary: "Cluster") -> None:
        """Wait until this standby has replayed all that `primary` has committed."""
        position = primary.query("SELECT pg_current_wal_flush_lsn()")
        deadline = time.monotonic() + 60
        while not self.query(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"):
            assert time.monotonic() < deadline, f"{position} was not replayed"
            time.sleep(0.02)

    def follow(self, primary: "Cluster") -> None:
        """Become a standby of `primary` at the next start."""
        (self._data / "standby.signal").touch()
        with (self._data / "postgresql.auto.conf").open("a") as file:
            file.write(f"primary_conninfo = '{primary.conninfo()}'\n")

    def conninfo(self, database: str = "") -> str:
        of = f" dbname={database}" if database else ""
        return f"host=127.0.0.1 port={self.port} user=postgres{of}"

    def set(self, name: str, value: str) -> None:
        """Change a setting of the running server, for new and open sessions."""
        self.execute(f"ALTER SYSTEM SET {name} = {value}")
        loaded = self.query("SELECT pg_conf_load_time()")
        self.execute("SELECT pg_reload_conf()")
        # The server signals open sessions before it starts a new one.
        deadline = time.monotonic() + 60
        while self.query("SELECT pg_conf_load_time()") == loaded:
            assert time.monotonic() < deadline, f"{name} was not set"
            time.sleep(0.02)

    def execute(self, statement: str) -> None:
        """Run a statement as the superuser, outside any transaction."""
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def query(self, statement: str) -> object:
        """Return the value of a statement that yields one."""
        with self._admin.connect() as connection:
            return connection.exec_driver_sql(statement).scalar_one()

    def count_sessions(self, application: str = "moorage") -> int:
        query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        with self._admin.connect() as connection:
            return int(connection.execute(query, {"name": application}).scalar_one())

    def prepare(self) -> None:
        with self._admin.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE moorage_template"))
        migrate.upgrade(self.url("moorage_template"))
        self._content = spare_databases.read_content(self.conninfo("moorage_template"))

    @contextlib.contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """Yield the URL of a database with the schema alone, or of one without it.

        It is new, or an earlier test used it under another name.
        """
        name = f"moorage_{uuid.uuid4().hex}"
        schema = None
        if not empty and self._spare:
            spare, schema = self._spare.pop()
            self.execute(f"ALTER DATABASE {spare} RENAME TO {name}")
        else:
            template = "template0" if empty else "moorage_template"
            self.execute(f"CREATE DATABASE {name} TEMPLATE {template} {COPIED}")
            if self._content is not None and not empty:
                schema = spare_databases.describe(self.conninfo(name))
        try:
            yield self.url(name)
        finally:
            if not self._keep(name, schema):
                self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _keep(self, name: str, schema: Description | None) -> bool:
        """Empty a database for the next test. Return False if it cannot be used again."""
        if self._content is None or schema is None:
            return False
        try:
            described = spare_databases.empty(self.conninfo(name), self._content, schema)
        except psycopg.Error:  # such as a database that nobody may write to any more
            return False
        if described is not None:
            self._spare.append((name, described))
        return described is not None


def as_postgres(command: list[str]) -> list[str]:
    """Return a command that runs as another user if this is root, as PostgreSQL requires."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@contextlib.contextmanager
def run_cluster(binaries: Path) -> Iterator[Cluster]:
    """Run a cluster on a free loopback port."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        subprocess.run(
            as_postgres(
                [
                    *(str(binaries / "initdb"), "-D", str(data), "-U", "postgres"),
                    *("-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
                ]
            ),
            check=True,
            capture_output=True,
            cwd=folder,
        )
        cluster = Cluster(folder, free_port(), binaries)
        cluster.start()
        try:
            cluster.prepare()
            yield cluster
        finally:
            cluster.stop("immediate")
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def run_standby(primary: Cluster) -> Iterator[Cluster]:
    """Run a hot standby of `primary` on a free port."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-pg-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        command = [str(primary.binaries / "pg_basebackup"), "-d", primary.conninfo()]
        command += ["-D", str(folder / "data"), "-R", "--checkpoint=fast", "--no-sync"]
        subprocess.run(as_postgres(command), check=True, capture_output=True, cwd=folder)
        standby = Cluster(folder, free_port(), primary.binaries)
        standby.start()
        try:
            yield standby
        finally:
            standby.stop("immediate")
    finally:
        shutil.rmtree(folder)
