"""`moorage serve`, as users and init systems run it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from registry.metadata.engine import migrate
from storage.digest import Digest
from tests.support.kit import Kit
from tests.support.pushing import blob_bytes
from tests.support.servers import launcher
from tests.support.servers.postgres import Cluster, free_port
from tests.support.servers.raw import Wire
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def moorage(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return launcher.run(*arguments, cwd=cwd, env={**os.environ, **environment})


def test_it_says_where_it_listens_where_data_lies_and_how_to_push(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        said = server.log.read_text()
    assert f"listens on http://127.0.0.1:{server.port}" in said
    assert f"Data directory: {tmp_path / 'data'}" in said
    assert f"docker push localhost:{server.port}/IMAGE" in said


def test_a_port_in_use_is_named_with_the_way_out(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        listen = f"127.0.0.1:{server.port}"
        second = moorage("serve", "--listen", listen, "--data", "other", cwd=tmp_path)
    assert second.returncode == 1
    assert str(server.port) in second.stderr
    assert "--listen" in second.stderr
    assert "Traceback" not in second.stderr


def test_an_address_others_can_reach_is_refused_with_the_ways_on(tmp_path: Path) -> None:
    listen = f"0.0.0.0:{free_port()}"
    refused = moorage("serve", "--listen", listen, cwd=tmp_path)
    assert refused.returncode == 1
    assert "moorage user add NAME --admin" in refused.stderr
    assert f"moorage serve --listen {listen}" in refused.stderr
    assert 'mode = "none"' in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_tls_it_warns_and_names_what_silences_it(tmp_path: Path) -> None:
    """The address belongs to no machine, so the server never listens."""
    (tmp_path / "keys.json").write_text("{}")
    issuer = {
        "MOORAGE_AUTH__ISSUER": "gitlab",
        "MOORAGE_AUTH__AUDIENCE": "registry",
        "MOORAGE_AUTH__JWKS_FILE": str(tmp_path / "keys.json"),
    }
    serve = ("serve", "--listen", "192.0.2.1:5000")
    told = moorage(*serve, cwd=tmp_path, **issuer).stderr
    silenced = moorage(*serve, cwd=tmp_path, **issuer, MOORAGE_HTTP__TRUSTED_PROXIES="10.0.0.1")
    for output in (told, silenced.stderr):
        assert "cannot listen on 192.0.2.1:5000" in output
    (warning,) = [line for line in told.splitlines() if "WARNING" in line]
    for remedy in ("tls_cert", "tls_key", "trusted_proxies", "external_url", "X-Forwarded-Proto"):
        assert remedy in warning
    assert "WARNING" not in silenced.stderr


def test_a_schema_that_does_not_fit_is_refused_with_the_remedy(
    postgres: Cluster, tmp_path: Path
) -> None:
    with postgres.database() as url, psycopg.connect(url.replace("+psycopg", "")) as session:
        session.autocommit = True
        listen = f"127.0.0.1:{free_port()}"
        environment = {"MOORAGE_DATABASE__URL": url}
        for spoil, remedy in (
            ("UPDATE schema_version SET version = 1", "moorage db upgrade"),
            (
                "UPDATE schema_version SET version = 99, min_reader = 99",
                "Install the newer version",
            ),
            # Tables of another program.
            ("ALTER TABLE schema_version RENAME TO theirs", "moorage db upgrade"),
        ):
            session.execute(spoil)
            refused = moorage("serve", "--listen", listen, cwd=tmp_path, **environment)
            assert refused.returncode == 1
            assert remedy in refused.stderr
            assert "Traceback" not in refused.stderr


def test_replicas_that_start_at_once_on_an_empty_database_make_it_once(
    postgres: Cluster, tmp_path: Path
) -> None:
    with postgres.database(empty=True) as url, contextlib.ExitStack() as stack:
        environment = {
            "MOORAGE_DATABASE__URL": url,
            "MOORAGE_STORAGE__ROOT": str(tmp_path / "store"),
        }
        servers = [Server(tmp_path / f"{n}", 1, environment) for n in range(3)]
        with ThreadPoolExecutor(3) as threads:
            started = [threads.submit(stack.enter_context, serving(each)) for each in servers]
            for each in started:
                each.result()
        for server in servers:
            assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}
        with psycopg.connect(url.replace("+psycopg", "")) as session:
            assert session.execute("SELECT version, min_reader FROM schema_version").fetchall() == [
                (migrate.VERSION, 1)
            ]


async def test_the_version_before_serves_on_while_the_next_expands_the_schema(
    postgres: Cluster, tmp_path: Path
) -> None:
    """The code under test is the previous version; the test itself changes the schema."""
    with (
        postgres.database() as url,
        psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as session,
        serving(Server(tmp_path / "data", 2, {"MOORAGE_DATABASE__URL": url})) as server,
    ):
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            kit = Kit(http)
            await kit.push_image("team/app", "before")
            session.execute(
                "ALTER TABLE manifests ADD COLUMN later text;"
                f"UPDATE schema_version SET version = {migrate.VERSION + 1}"
            )
            await kit.push_image("team/app", "beside", "new")
            for tag in ("before", "beside"):
                assert (await http.get(f"/v2/team/app/manifests/{tag}")).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
            with serving(Server(tmp_path / "data", 1, {"MOORAGE_DATABASE__URL": url})):
                pass  # a server that is started now also works
            # The version after that may break this one, which must be stopped before.
            session.execute(f"UPDATE schema_version SET min_reader = {migrate.VERSION + 1}")
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert "Install the newer version" in answer.json()["problems"]["database"]


async def test_sigterm_is_told_to_probes_before_the_port_is_closed(tmp_path: Path) -> None:
    settings = {"MOORAGE_HTTP__SHUTDOWN_DELAY": "2s"}
    with serving(Server(tmp_path / "data", 2, settings)) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.running.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 2
        while (answer := httpx.get(f"{server.url}/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert answer.json()["problems"] == {"server": "shutting down"}
        assert httpx.get(f"{server.url}/v2/").status_code == 200
        assert server.wait() == 0


@pytest.mark.parametrize("victim", ["worker", "parent", "all"])
async def test_it_comes_back_after_kill_9(tmp_path: Path, victim: str) -> None:
    data = blob_bytes("back", 10_000)
    with serving(Server(tmp_path / "data", 3)) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            digest = await Kit(http).push_blob("back", data)
        if victim == "worker":
            killed = server.worker_pids()[0]
            os.kill(killed, signal.SIGKILL)
            deadline = time.monotonic() + 20
            while killed in server.worker_pids() or len(server.worker_pids()) < 3:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        elif victim == "parent":
            os.kill(server.running.pid, signal.SIGKILL)
            server.wait()  # the workers end by themselves and release the port
            server.start()
        else:
            server.kill()
            server.start()
        for _ in range(10):
            assert httpx.get(f"{server.url}/v2/back/blobs/{digest}").content == data


async def start_put(server: Server, data: bytes, announced: int) -> Wire:
    """Start the final PUT of a session, and send only `data` of the `announced` bytes."""
    wire = await Wire.open(server.port)
    await wire.send_head("POST", "/v2/drain/blobs/uploads/", Content_Length=0)
    location = (await wire.read()).headers["location"]
    digest = Digest.of(blob_bytes("drain", announced))
    await wire.send_head("PUT", f"{location}?digest={digest}", Content_Length=announced)
    await wire.send(data)
    await asyncio.sleep(0.3)
    return wire


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_lets_requests_finish(tmp_path: Path, workers: int) -> None:
    data = blob_bytes("drain", 1_000_000)
    with serving(Server(tmp_path / "data", workers)) as server:
        wire = await start_put(server, data[:500_000], len(data))
        server.running.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/v2/")
        await wire.send(data[500_000:])
        assert (await wire.read()).status == 201
        await wire.close()
        assert server.wait() == 0
        server.start()
        pulled = httpx.get(f"{server.url}/v2/drain/blobs/{Digest.of(data)}")
        assert pulled.content == data


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_answers_once_more_on_an_idle_connection(
    tmp_path: Path, workers: int
) -> None:
    """A proxy may have sent a request before it notices that the connection is closing."""
    with serving(Server(tmp_path / "data", workers)) as server:
        wire = await Wire.open(server.port)
        await wire.send_head("GET", "/v2/")
        assert (await wire.read()).status == 200
        server.running.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # open connections until no more can be opened
            while True:
                await (await Wire.open(server.port)).close()
        await wire.send_head("GET", "/v2/")
        answer = await wire.read()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await wire.close()
        assert server.wait() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_does_not_wait_for_ever(tmp_path: Path, workers: int) -> None:
    with serving(
        Server(tmp_path / "data", workers, {"MOORAGE_HTTP__DRAIN_TIMEOUT": "1s"})
    ) as server:
        wire = await start_put(server, b"x" * 10, 1000)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 60
        await wire.close()
        server.start()
        assert httpx.get(f"{server.url}/readyz").status_code == 200


async def test_every_answer_and_line_has_the_request_id(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data", settings={"MOORAGE_LOG__FORMAT": "json"})) as server:
        answer = httpx.get(f"{server.url}/v2/x/tags/list", headers={"X-Request-Id": "mine-1"})
        assert answer.headers["X-Request-Id"] == "mine-1"
        other = httpx.get(f"{server.url}/v2/", headers={"X-Request-Id": "a b"})
        assert other.headers["X-Request-Id"] not in {"", "a b"}
    assert '"request_id": "mine-1"' in server.log.read_text().replace('":"', '": "')


async def test_a_manifest_of_one_byte_too_many_is_refused_unread(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data")) as server:
        wire = await Wire.open(server.port)
        await wire.send_head("PUT", "/v2/big/manifests/v1", Content_Length=(4 << 20) + 1)
        answer = await wire.read()
        assert answer.status == 413
        assert answer.headers["connection"] == "close"
        await wire.close()
        # Without Content-Length, the body is refused at the byte that exceeds the limit.
        wire = await Wire.open(server.port)
        await wire.send_head("PUT", "/v2/big/manifests/v1", Transfer_Encoding="chunked")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(65):
            await wire.send(piece)
        assert (await wire.read()).status == 413
        await wire.close()
