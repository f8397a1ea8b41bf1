"""Kill -9 of a running sync: the next one continues, and fetches nothing again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.digest import Digest
from tests.cli.moorage import Moorage, at
from tests.scenarios.mirrors.sources import Image, Source
from tests.support.servers.debian_registry import DebianRegistry, debian_registry
from tests.support.servers.launcher import ROOT
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(300)

LIMIT_S = 120.0
SMALL, LARGE = Image("small"), Image("large", 32 << 20)


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[DebianRegistry]:
    folder = tmp_path / "upstream"
    folder.mkdir()
    with debian_registry(folder) as registry, Source(registry.url) as source:
        source.push("app", "small", SMALL)
        source.push("app", "large", LARGE)
        yield registry


@pytest.fixture
def proxy(upstream: DebianRegistry) -> Iterator[TcpProxy]:
    with tcp_proxy(("127.0.0.1", int(upstream.url.rpartition(":")[2]))) as proxy:
        yield proxy


def wait_for(moorage: Moorage, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until the first sync is in a state, and return it."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        runs = moorage.json("mirror", "syncs", "hub")["syncs"]
        if runs and holds(runs[-1]):
            first: dict[str, Any] = runs[-1]
            return first
        assert time.monotonic() < deadline, runs
        time.sleep(0.1)


def is_half_done(run: dict[str, Any]) -> bool:
    """Return whether the small image is copied, and the large one partly."""
    done, size = run["progress"]["done"], run["progress"]["copied_bytes"]
    return bool(done == 1 and size > len(SMALL.config) + len(SMALL.layer))


def count_gets(upstream: DebianRegistry, image: Image) -> int:
    digest = Digest.of(image.layer)
    return upstream.count(f'"GET /v2/app/blobs/{digest}')


def check_copies(mirror: Source, upstream: DebianRegistry) -> None:
    assert mirror.get("hub/app", "small") == SMALL.raw
    assert mirror.get("hub/app", "large") == LARGE.raw
    assert (count_gets(upstream, SMALL), count_gets(upstream, LARGE)) == (1, 2)


def test_a_killed_command_is_continued_by_the_next_one(
    tmp_path: Path, upstream: DebianRegistry, proxy: TcpProxy
) -> None:
    (tmp_path / "data").mkdir()
    moorage = at(tmp_path / "data")
    url = f"http://127.0.0.1:{proxy.port}"
    moorage.run("mirror", "add", "hub", "--upstream", url, "--allow-private")
    proxy.delay(0.2)
    command = [sys.executable, "-m", "registry.cli.main", "mirror", "sync", "hub", *moorage.where]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, start_new_session=True)
    try:
        wait_for(moorage, is_half_done)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    proxy.delay(0)
    again = moorage.json("mirror", "sync", "hub")
    assert (again["state"], again["progress"]["unchanged"]) == ("succeeded", 2)
    first = wait_for(moorage, lambda run: run["ended_at"] is not None)
    assert (first["state"], first["progress"]["done"]) == ("succeeded", 1)
    with serving(Server(tmp_path / "data")) as server, Source(server.url) as mirror:
        check_copies(mirror, upstream)


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Return the settings of a database."""
    if request.param == "sqlite":
        yield {}
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    with cluster.database() as url:
        yield {"MOORAGE_DATABASE__URL": url}


def test_a_killed_server_is_continued_by_the_next_one(
    tmp_path: Path, upstream: DebianRegistry, proxy: TcpProxy, settings: dict[str, str]
) -> None:
    """A run of a schedule, in one of two workers, on each database."""
    (tmp_path / "data").mkdir()
    moorage = Moorage(tmp_path, ["--data", str(tmp_path / "data")], settings)
    url = f"http://127.0.0.1:{proxy.port}"
    moorage.run("mirror", "add", "hub", "--upstream", url, "--allow-private")
    moorage.run("mirror", "sync", "hub", "--every", "6h")
    proxy.delay(0.2)
    server = Server(tmp_path / "data", workers=2, settings=settings).start()
    try:
        wait_for(moorage, is_half_done)
    finally:
        server.kill()
    proxy.delay(0)
    with serving(server), Source(server.url) as mirror:
        run = wait_for(moorage, lambda run: run["ended_at"] is not None)
        assert (run["state"], run["schedule"]) == ("succeeded", 1)
        assert len(moorage.json("mirror", "syncs", "hub")["syncs"]) == 1
        shown = moorage.json("mirror", "show", "hub")["schedules"]
        assert [each["last"]["run"] for each in shown] == [run["id"]]
        check_copies(mirror, upstream)
