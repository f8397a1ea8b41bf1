"""PgBouncer in transaction mode, in a temporary folder."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.support.missing import missing
from tests.support.servers.postgres import Cluster, as_postgres, free_port


@contextlib.contextmanager
def run_pgbouncer(cluster: Cluster, sessions: int) -> Iterator[int]:
    """Run a PgBouncer with at most `sessions` sessions per database, and return its port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        missing("PgBouncer")
    folder = Path(tempfile.mkdtemp(prefix="moorage-pgbouncer-"))
    port = free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(f"""
[databases]
* = host=127.0.0.1 port={cluster.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
""")
    # Without authentication, PgBouncer takes the user from the entry of the database.
    text = settings.read_text().replace("* = host", "* = user=postgres host")
    settings.write_text(text)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(settings, "postgres")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(as_postgres([program, str(settings)]), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(f"host=127.0.0.1 port={port} user=postgres dbname=postgres").close()
                break
            except psycopg.OperationalError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)
