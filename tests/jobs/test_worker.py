"""`moorage worker` in several processes: one at a time runs a job, even if processes die."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.servers.postgres import Cluster
from tests.support.servers.server import ROOT, Server, serving
from tests.support.servers.tcp_proxy import tcp_proxy
from tests.support.servers.workers import PATIENCE, worker

PATCH = """
import asyncio, os, time
from pathlib import Path
from registry.jobs import runner
from registry.app import composition

runner.LEASE_S, runner.HEARTBEAT_S = 2.0, 0.5
LINES = Path(os.environ["LINES"])
real = composition.list_jobs


def note(word):
    with LINES.open("a") as lines:
        lines.write(f"{word} {os.getpid()} {time.monotonic()}\\n")


async def always():
    return True


async def run():
    note("begin")
    await asyncio.sleep(float(os.environ["TAKES"]))
    note("end")
    return 0


composition.list_jobs = lambda *rest, **more: [
    *real(*rest, **more),
    runner.Job("noted", 0.05, always, run),
]
"""
"""Runs in each process before everything else: a job that notes who runs it, and short leases."""


@dataclass
class Notes:
    """The log that the job writes."""

    path: Path

    def read(self) -> list[tuple[str, int, float]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [(word, int(pid), float(at)) for word, pid, at in map(str.split, lines)]

    def wait_for(self, word: str, pid: int | None = None, after: float = 0) -> tuple[int, float]:
        deadline = time.monotonic() + PATIENCE
        while True:
            for found, who, at in self.read():
                if found == word and at > after and pid in {None, who}:
                    return who, at
            assert time.monotonic() < deadline, self.read()
            time.sleep(0.02)

    def require_one_at_a_time(self) -> None:
        """Check that no process begins before the previous one has ended or died."""
        running: int | None = None
        for word, pid, _ in self.read():
            if word == "begin":
                assert running is None or not alive(running), self.read()
                running = pid
            else:
                assert running == pid, self.read()
                running = None


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "lines")


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(PATCH)
    return folder


@pytest.fixture
def environment(notes: Notes, patches: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "LINES": str(notes.path),
        "TAKES": "0.2",
        "PYTHONPATH": os.pathsep.join([str(patches), str(ROOT)]),
        "MOORAGE_STORAGE__ROOT": str(tmp_path / "store"),
    }


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_one_runs_a_job_at_a_time_and_another_follows(
    postgres: Cluster,
    tmp_path: Path,
    notes: Notes,
    environment: dict[str, str],
    end: signal.Signals,
) -> None:
    with postgres.database() as url:
        environment |= {"MOORAGE_DATABASE__URL": url}
        with (
            worker(tmp_path / "one", **environment) as one,
            worker(tmp_path / "two", **environment) as two,
        ):
            pids = {one.pid: one, two.pid: two}
            for pid in pids:
                notes.wait_for("end", pid)
            environment["TAKES"] = "30"
            first, _ = notes.wait_for("begin", after=time.monotonic())
            os.kill(first, end)
            ended = time.monotonic()
            (other,) = pids.keys() - {first}
            if end == signal.SIGTERM:
                assert pids[first].wait(PATIENCE) == 0
            _, at = notes.wait_for("begin", other, after=ended)
            notes.wait_for("end", other, after=at)
            if end == signal.SIGSTOP:
                os.kill(first, signal.SIGCONT)
            elif end == signal.SIGKILL:
                pids[first].wait()
                assert at - ended > 1  # The next process waited for the end of the lease.
                notes.require_one_at_a_time()


def test_a_long_piece_keeps_its_lease(
    postgres: Cluster, tmp_path: Path, notes: Notes, environment: dict[str, str]
) -> None:
    with postgres.database() as url:
        environment |= {"MOORAGE_DATABASE__URL": url, "TAKES": "5"}
        with (
            worker(tmp_path / "one", **environment),
            worker(tmp_path / "two", **environment),
        ):
            _, begun = notes.wait_for("begin")
            notes.wait_for("end", after=begun)
            notes.require_one_at_a_time()


def test_work_is_cut_off_when_its_lease_cannot_be_kept(
    postgres: Cluster, tmp_path: Path, notes: Notes, environment: dict[str, str]
) -> None:
    """A worker without a database connection must stop before the next worker starts."""
    with (
        postgres.database() as url,
        tcp_proxy(("127.0.0.1", postgres.port)) as proxy,
    ):
        environment["TAKES"] = "6"
        behind = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with worker(tmp_path / "one", **environment, MOORAGE_DATABASE__URL=behind) as one:
            notes.wait_for("begin", one.pid)
            with worker(tmp_path / "two", **environment, MOORAGE_DATABASE__URL=url) as two:
                proxy.refuse()
                notes.wait_for("begin", two.pid)
                notes.wait_for("end", two.pid)
                assert "end" not in {word for word, pid, _ in notes.read() if pid == one.pid}
                proxy.accept()


def test_a_server_that_is_told_so_leaves_the_jobs_to_workers(
    tmp_path: Path, notes: Notes, patches: Path, environment: dict[str, str]
) -> None:
    environment["MOORAGE_JOBS__IN_SERVE"] = "false"
    server = Server(tmp_path / "data", 2, environment, patches)
    with serving(server):
        with worker(tmp_path / "data", **environment) as one:
            assert notes.wait_for("end")[0] == one.pid
        assert {pid for _, pid, _ in notes.read()} == {one.pid}
    environment["MOORAGE_JOBS__IN_SERVE"] = "true"
    stopped = time.monotonic()
    with serving(server):
        assert notes.wait_for("end", after=stopped)[0] in server.worker_pids()


def test_without_a_registry_it_says_so(tmp_path: Path) -> None:
    with worker(tmp_path / "none") as process:
        assert process.wait(PATIENCE) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert "no registry in" in said
    assert "Traceback" not in said


def test_with_a_schema_that_does_not_fit_it_says_so(postgres: Cluster, tmp_path: Path) -> None:
    with postgres.database() as url:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as session:
            session.execute("UPDATE schema_version SET version = 1")
        with worker(tmp_path / "none", MOORAGE_DATABASE__URL=url) as process:
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            assert "moorage db upgrade" in process.stderr.read()
