"""A start without database or bucket: health checks are answered, and the server starts later."""

import contextlib
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from registry.errors import ConfigError, DatabaseUnavailableError
from registry.metadata.engine import migrate
from registry.metadata.engine.reachable import require_reachable
from tests.support.servers.postgres import Cluster
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import tcp_proxy
from tests.support.servers.workers import PATIENCE, worker

pytestmark = pytest.mark.timeout(120)


@dataclass
class EarlyServer(Server):
    """A server that counts as started after any response."""

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_ready(server: Server) -> bool:
    return httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200


def require_waiting(server: Server, part: str) -> None:
    """Require that health checks are answered and all other requests get 503 with Retry-After."""
    answer = httpx.get(f"{server.url}/readyz", timeout=60)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert list(answer.json()["problems"]) == [part]
    for path in ("/v2/", "/v2/a/blobs/sha256:" + "0" * 64, "/token", "/", "/api/v1/users"):
        answer = httpx.get(server.url + path, timeout=60)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["errors"][0]["code"] == "UNAVAILABLE"
    assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == 200
    log = server.wait_for_log(f"waiting for the {part}")
    # At most one line for the parent and one for each worker.
    assert 1 <= log.count(f"waiting for the {part}") <= server.workers + 1
    assert "Traceback" not in log
    assert log.count("ERROR") <= 1 + server.workers


def test_serve_waits_for_a_database_that_comes_late(postgres: Cluster, tmp_path: Path) -> None:
    with (
        postgres.database(empty=True) as url,
        tcp_proxy(("127.0.0.1", postgres.port)) as proxy,
    ):
        proxy.refuse()
        settings = {
            "MOORAGE_DATABASE__URL": url.replace(f":{postgres.port}/", f":{proxy.port}/"),
            "MOORAGE_LOG__ACCESS": "false",
        }
        with serving(EarlyServer(tmp_path / "data", 2, settings)) as server:
            time.sleep(2.5)  # several attempts, which are not logged again
            require_waiting(server, "database")
            server.wait_for_log("Connection refused")
            proxy.accept()
            wait_until(lambda: is_ready(server))
            wait_until(lambda: httpx.get(f"{server.url}/v2/").status_code == 200)
            server.wait_for_log("the database is now available")


def test_open_mode_is_warned_of_where_the_database_comes_late(
    postgres: Cluster, tmp_path: Path
) -> None:
    with postgres.database() as url, tcp_proxy(("127.0.0.1", postgres.port)) as proxy:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as session:
            session.execute(
                "INSERT INTO users"
                " (name, generation, is_admin, is_disabled, owns_namespace, created_at)"
                " VALUES ('ann', 'first', true, false, true, 0)"
            )
        words = "there are users, but auth.mode"
        behind = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        proxy.refuse()
        settings = {"MOORAGE_AUTH__MODE": "none", "MOORAGE_DATABASE__URL": behind}
        with serving(EarlyServer(tmp_path / "data", 1, settings)) as server:
            assert words not in server.log.read_text()
            proxy.accept()
            wait_until(lambda: httpx.get(f"{server.url}/v2/", timeout=60).status_code == 200)
            assert server.wait_for_log(words).count(words) == 1


def test_serve_waits_for_a_bucket_that_comes_late(seaweed: Seaweed, tmp_path: Path) -> None:
    with tcp_proxy(("127.0.0.1", seaweed.port)) as proxy:
        proxy.refuse()
        settings = bucket_settings(seaweed, f"http://127.0.0.1:{proxy.port}")
        with serving(EarlyServer(tmp_path / "data", 1, settings)) as server:
            require_waiting(server, "storage")
            server.wait_for_log("does not answer: Could not connect to the endpoint")
            proxy.accept()
            wait_until(lambda: is_ready(server))
            assert httpx.get(f"{server.url}/v2/").status_code == 200


def bucket_settings(seaweed: Seaweed, endpoint: str = "") -> dict[str, str]:
    given = seaweed.bucket().overrides() | {"storage.driver": "s3"}
    if endpoint:
        given["storage.endpoint"] = endpoint
    return {f"MOORAGE_{key.upper().replace('.', '__')}": value for key, value in given.items()}


def test_a_server_that_waits_ends_when_it_is_told_to(tmp_path: Path) -> None:
    settings = {"MOORAGE_DATABASE__URL": "postgresql://moorage@127.0.0.1:1/moorage"}
    with serving(EarlyServer(tmp_path / "data", 2, settings)) as server:
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def test_what_waiting_does_not_mend_ends_a_server_that_waits(
    postgres: Cluster, tmp_path: Path
) -> None:
    with tcp_proxy(("127.0.0.1", postgres.port)) as proxy:
        proxy.refuse()
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/nowhere"
        server = EarlyServer(tmp_path / "data", 2, {"MOORAGE_DATABASE__URL": url})
        server.start()
        proxy.accept()
        assert server.wait() == 1
        said = server.log.read_text()
        assert 'database "nowhere" does not exist' in said
        assert "database.url" in said
        assert "Traceback" not in said


def test_worker_waits_as_well(postgres: Cluster, tmp_path: Path) -> None:
    with (
        postgres.database() as url,
        tcp_proxy(("127.0.0.1", postgres.port)) as proxy,
    ):
        proxy.refuse()
        behind = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with worker(tmp_path / "data", MOORAGE_DATABASE__URL=behind) as process:
            wait_for_line(process, "waiting for the database")
            assert process.poll() is None
            proxy.accept()
            wait_for_line(process, "running the jobs")


def test_worker_waits_until_a_database_is_filled(postgres: Cluster, tmp_path: Path) -> None:
    settings = {"MOORAGE_STORAGE__ROOT": str(tmp_path / "store")}
    with (
        postgres.database(empty=True) as url,
        worker(tmp_path / "data", MOORAGE_DATABASE__URL=url, **settings) as process,
    ):
        wait_for_line(process, "the database is empty until the first server starts")
        migrate.upgrade(url)
        wait_for_line(process, "running the jobs")


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(words)


# Errors of PostgreSQL at the start of a session, and whether a retry may succeed


class Refusing(socketserver.BaseRequestHandler):
    """PostgreSQL server that refuses each connection with the error message in `server.words`."""

    def handle(self) -> None:
        while self.request.recv(8192)[4:8] == struct.pack("!I", 80877103):  # a TLS request
            self.request.sendall(b"N")
        fields = f"SFATAL\0VFATAL\0M{self.server.words}\0\0".encode()  # type: ignore[attr-defined]
        self.request.sendall(b"E" + struct.pack("!I", len(fields) + 4) + fields)


@contextlib.contextmanager
def refusing(words: str) -> Iterator[str]:
    """Run such a server, and yield its URL."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        server.daemon_threads = True
        server.words = words  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"postgresql://me:KEY@127.0.0.1:{server.server_address[1]}/moorage"
        server.shutdown()


@pytest.mark.parametrize(
    "words",
    [
        'password authentication failed for user "me"',
        'no pg_hba.conf entry for host "127.0.0.1", user "me", database "moorage", no encryption',
        'role "me" does not exist',
        'database "moorage" does not exist',
        "permission denied \x1b[2J for database " + "x" * 1000,
    ],
)
def test_refusals_that_last_are_final_and_bounded(words: str) -> None:
    with refusing(words) as url, pytest.raises(ConfigError) as refused:
        require_reachable(url)
    assert words[:12] in refused.value.message
    assert "database.url" in refused.value.message
    assert "KEY" not in refused.value.message
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 600


@pytest.mark.parametrize(
    "words",
    [
        "the database system is starting up",
        "the database system is shutting down",
        "sorry, too many clients already",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "server login has been failing, cached error: connect failed (server_login_retry)",
    ],
)
def test_refusals_that_pass_are_waited_for(words: str) -> None:
    with refusing(words) as url, pytest.raises(DatabaseUnavailableError) as refused:
        require_reachable(url)
    assert words[:12] in refused.value.reason
    # The message is public in /readyz, so it has no details.
    assert refused.value.message == "the database does not answer"


def test_options_that_libpq_does_not_know_are_final() -> None:
    with pytest.raises(ConfigError, match="invalid connection option"):
        require_reachable("postgresql://me:KEY@127.0.0.1:1/moorage?ssl_mode=require")
