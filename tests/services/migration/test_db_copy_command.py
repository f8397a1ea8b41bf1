"""Tests of the `db copy` command, also when it is killed during the copy."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.metadata.engine.migrations.schemas import fill
from tests.support.servers.launcher import Launched
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import ROOT, Server, serving

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

HALT = """
import time
from pathlib import Path
from registry.metadata.maintenance import database_copy
from registry.services.maintenance import database_transfer
database_transfer.LEASE_S = 2.0
def halt(*arguments):
    Path({mark!r}).touch()
    time.sleep(60)
database_copy._set_counters = halt
"""


def begin(data: Path, *arguments: str, patches: Path | None = None) -> "subprocess.Popen[str]":
    path = os.pathsep.join(str(p) for p in (patches, ROOT) if p is not None)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
    return Launched(
        ["db", *arguments, "--data", str(data)],
        env={**kept, "PYTHONPATH": path, "MOORAGE_AUTH__SECRET": "x" * 32},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(data: Path, *arguments: str, expect: int = 0) -> str:
    process = begin(data, *arguments)
    told, complaints = process.communicate(timeout=120)
    assert process.returncode == expect, complaints
    assert "Traceback" not in complaints
    return told + complaints


def try_to_write(data: Path) -> str:
    """Return the error that an ordinary SQLite client gets on a write."""
    connection = sqlite3.connect(data / "moorage.db", timeout=30)
    try:
        with connection:
            connection.execute("UPDATE change_feed_revision SET revision = revision")
    except sqlite3.IntegrityError as error:
        return str(error)
    finally:
        connection.close()
    return ""


def test_the_command_killed_and_run_again(tmp_path: Path, postgres: Cluster) -> None:
    data, mark, patches = tmp_path / "data", tmp_path / "mark", tmp_path / "patches"
    with serving(Server(data)):
        pass
    fill(f"sqlite:///{data}/moorage.db")
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(HALT.format(mark=str(mark)))
    assert "--to" in run(data, "copy", expect=1)
    with postgres.database() as target:
        killed = begin(data, "copy", "--to", target, patches=patches)
        deadline = time.monotonic() + 60
        while not mark.exists():
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "is read-only" in try_to_write(data)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        while try_to_write(data):
            assert time.monotonic() < deadline + 60
            time.sleep(0.1)
        told = json.loads(run(data, "copy", "--to", target, "--json"))
        assert told["rows"]["manifests"] > 0
        assert "is read-only" in try_to_write(data)
        assert "moved: accepts no changes" in run(data, "status")
        assert "was moved" in run(data, "copy", "--to", target, expect=1)
        assert "accepts changes again" in run(data, "copy", "--release")
        assert try_to_write(data) == ""


def test_a_password_is_not_taken_from_the_arguments(tmp_path: Path, postgres: Cluster) -> None:
    data = tmp_path / "data"
    with postgres.database(empty=True) as url:
        with_password = url.replace("postgres@", "postgres:a-password@")
        with serving(Server(data)):
            refused = run(data, "copy", "--to", with_password, expect=1)
            assert "--to-file" in refused
            assert "a-password" not in refused
            (tmp_path / "url").write_text(f"{with_password}\n")
            told = run(data, "copy", "--stay", "--to-file", str(tmp_path / "url"))
            assert "Copied" in told
