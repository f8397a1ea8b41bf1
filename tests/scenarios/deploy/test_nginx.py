"""deploy/nginx: nginx accepts the files and passes requests and responses on unchanged."""

import hashlib
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenarios.clients.client import PATH, Client, find_program
from tests.scenarios.clients.images import two_platforms
from tests.support.kit import Kit
from tests.support.servers.certificates import Authority
from tests.support.servers.nginx import Nginx, proxying
from tests.support.servers.postgres import free_port
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("nginx")]

LARGE = 48 << 20
"""Larger than every buffer on the way, and than nginx's default limit of 1 MiB."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    authority = Authority()
    (folder / "ca.crt").write_bytes(authority.bundle)
    authority.issue(folder, "localhost", "127.0.0.1")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MOORAGE_HTTP__TRUSTED_PROXIES": "127.0.0.1", "MOORAGE_LOG__FORMAT": "json"}
    with serving(Server(tmp_path_factory.mktemp("behind") / "data", settings=settings)) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, authority: Path, server: Server
) -> Iterator[Nginx]:
    """Yield nginx in front of the server and of a replica that is down."""
    tls = authority / "localhost.crt", authority / "localhost.key"
    replicas = [free_port(), server.port]
    with proxying(Nginx(tmp_path_factory.mktemp("nginx"), replicas, tls)) as nginx:
        yield nginx


@pytest.fixture
def context(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority / "ca.crt")


@pytest.fixture
def http(nginx: Nginx, context: ssl.SSLContext) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=nginx.url, verify=context, timeout=60) as http:
        yield http


async def test_a_large_blob_goes_there_and_back(nginx: Nginx, context: ssl.SSLContext) -> None:
    data = os.urandom(LARGE)
    async with httpx.AsyncClient(base_url=nginx.url, verify=context, timeout=60) as http:
        digest = await Kit(http).push_blob("team/large", data)
        answer = await http.get(f"/v2/team/large/blobs/{digest}")
        part = await http.get(
            f"/v2/team/large/blobs/{digest}", headers={"Range": f"bytes={LARGE - 5}-"}
        )
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(data).digest()
    assert answer.headers["content-length"] == str(LARGE)
    assert (part.status_code, part.content) == (206, data[-5:])
    temporary = [p for name in ("body", "proxy") for p in (nginx.folder / name).rglob("*")]
    assert [p for p in temporary if p.is_file()] == []


def test_a_body_reaches_the_server_while_it_is_sent(http: httpx.Client, nginx: Nginx) -> None:
    """If nginx buffered the chunked body, the offset would stay 0 until the end of the body."""
    location = http.post("/v2/team/slow/blobs/uploads/").headers["location"]
    path = location.removeprefix(nginx.url)
    seen: list[int] = []

    def body() -> Iterator[bytes]:
        yield b"x" * LARGE
        deadline = time.monotonic() + 30
        while not seen and time.monotonic() < deadline:
            # Status 409 means that the upload session is in use.
            status = http_of_its_own.patch(path, content=b"y").status_code
            if status != 202:
                seen.append(status)
        yield b"end"

    with httpx.Client(base_url=nginx.url, verify=False, timeout=60) as http_of_its_own:  # noqa: S501
        answer = http.patch(path, content=body())
    assert answer.status_code == 202, answer.text
    assert seen == [409]


def test_skopeo_pushes_and_pulls(nginx: Nginx, authority: Path, tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "source", "1.0")
    (tmp_path / "policy.json").write_text(
        json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
    )
    # The default file is in a folder that an ordinary user may not have.
    environ = {
        "PATH": PATH,
        "HOME": str(tmp_path),
        "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"),
    }
    skopeo = Client(find_program("skopeo", "skopeo"), environ)
    there = f"docker://localhost:{nginx.port}/team/app:1.0"
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    (certificates / "ca.crt").symlink_to(authority / "ca.crt")
    copy = ["--policy", str(tmp_path / "policy.json"), "copy", "--all", "--preserve-digests"]
    to, back = f"--dest-cert-dir={certificates}", f"--src-cert-dir={certificates}"

    skopeo(*copy, to, f"oci:{layout.folder}:1.0", there)
    skopeo(*copy, back, there, f"oci:{tmp_path / 'returned'}:1.0")

    returned = json.loads((tmp_path / "returned" / "index.json").read_text())
    assert [m["digest"] for m in returned["manifests"]] == [m["digest"] for m in layout.index]


def test_the_client_is_who_nginx_saw_and_the_url_is_nginxs(
    context: ssl.SSLContext, nginx: Nginx, server: Server
) -> None:
    made_up = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=203.0.113.9;host=evil.example",
        "User-Agent": "made-up",
    }
    elsewhere = httpx.HTTPTransport(verify=context, local_address="127.0.0.2")
    with httpx.Client(base_url=nginx.url, transport=elsewhere) as http:
        answer = http.post("/v2/team/app/blobs/uploads/", headers=made_up)
    assert answer.status_code == 202
    assert answer.headers["location"].startswith(("/v2/", f"{nginx.url}/v2/"))
    assert wait_for_client(server, "made-up") == "127.0.0.2"


def wait_for_client(server: Server, user_agent: str) -> str:
    """Return the client address from the access log, which is written after the response."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        lines = [json.loads(ln) for ln in server.log.read_text().splitlines() if ln[:1] == "{"]
        for line in lines:
            if line.get("user_agent") == user_agent:
                return str(line["client"])
        time.sleep(0.05)
    raise AssertionError(server.log.read_text())


def test_a_path_stays_as_the_client_wrote_it(http: httpx.Client, server: Server) -> None:
    data = b"{}"
    location = http.post("/v2/team/app/blobs/uploads/").headers["location"]
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert http.put(location, params={"digest": digest}, content=data).status_code == 201
    for path in (
        f"/v2/team/app/blobs/{digest.replace(':', '%3A')}",
        f"/v2/team%2Fapp/blobs/{digest}",
        f"/v2//team/app/blobs/{digest}",
    ):
        direct = httpx.get(f"{server.url}{path}").status_code
        assert http.get(path).status_code == direct, path


@pytest.mark.parametrize("size", [0, 1 << 20, LARGE])
def test_a_refusal_reaches_a_client_that_still_sends(http: httpx.Client, size: int) -> None:
    """Moorage answers without reading the body, and nginx must not turn that into a 502."""
    answer = http.patch("/v2/team/app/blobs/uploads/00000000", content=bytes(size))
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_metrics_are_not_for_everybody(http: httpx.Client, server: Server) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    assert http.get("/metrics").status_code == 403


def test_a_replica_that_is_gone_is_not_noticed(http: httpx.Client, nginx: Nginx) -> None:
    """Non-idempotent requests succeed too, because the dead replica never received them."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", nginx.replicas[0])) != 0
    answers = [http.post("/v2/team/app/blobs/uploads/") for _ in range(8)]
    answers += [http.get("/v2/") for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200, 202}
