"""Clients that are redirected to the bucket for blobs."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.scenarios.clients.client import Client, find_program
from tests.scenarios.clients.images import rootfs, two_platforms
from tests.support.flaky import Flaky, flaky
from tests.support.servers.seaweed import Seaweed
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]


@dataclass(frozen=True)
class Place:
    """A registry, and the proxy between the clients and the bucket."""

    server: Server
    store: Flaky

    @property
    def host(self) -> str:
        return f"localhost:{self.server.port}"

    def list_fetched(self) -> list[bytes]:
        """Return the requests of clients to the store.

        Checks that all of them use presigned URLs and none sends credentials.
        """
        fetched = list(self.store.heads)
        assert all(b"X-Amz-Signature=" in head for head in fetched)
        assert not any(re.search(rb"(?i)\r\nauthorization:", head) for head in fetched)
        return fetched


@pytest.fixture(scope="module")
def place(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    bucket = seaweed.bucket()
    with flaky(bucket.endpoint) as store:
        settings = {
            **bucket.overrides(),
            "storage.driver": "s3",
            "storage.redirect": "true",
            "storage.redirect_endpoint": store.url,
            "log.level": "debug",
        }
        environ = {f"MOORAGE_{key.upper().replace('.', '__')}": v for key, v in settings.items()}
        server = Server(tmp_path_factory.mktemp("redirecting") / "data", settings=environ)
        with serving(server):
            yield Place(server, store)
        log = server.log.read_text()
        assert "/blobs/sha256:" in log
        for secret in ("X-Amz-", *_signatures(store)):
            assert secret not in log


def _signatures(store: Flaky) -> list[str]:
    heads = b"".join(store.heads).decode()
    found = re.findall(r"X-Amz-Signature=([0-9a-f]{64})", heads)
    assert found
    return found


def test_skopeo(skopeo: Client, place: Place, tmp_path: Path) -> None:
    layout = two_platforms(tmp_path / "source", "1.0")
    name = f"docker://{place.host}/team/skopeo:1.0"
    options = ["--all", "--preserve-digests"]
    skopeo("copy", *options, "--dest-tls-verify=false", f"oci:{layout.folder}:1.0", name)
    before = len(place.list_fetched())
    skopeo("copy", *options, "--src-tls-verify=false", name, f"oci:{tmp_path / 'back'}:1.0")
    blobs = {path.name for path in (tmp_path / "back" / "blobs" / "sha256").iterdir()}
    assert blobs == {path.name for path in (layout.folder / "blobs" / "sha256").iterdir()}
    assert len(place.list_fetched()) - before == 5  # two configs, three layers


def test_podman(podman: Client, busybox: Path, place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    archive.write_bytes(rootfs(busybox, made=b"made"))
    image = f"{place.host}/team/podman:1.0"
    podman("import", "--quiet", str(archive), image)
    podman("push", "--tls-verify=false", image)
    podman("rmi", "--all", "--force")
    before = len(place.list_fetched())
    podman("pull", "--quiet", "--tls-verify=false", image)
    assert podman("run", "--rm", "--network=none", image, "/bin/cat", "/made") == "made"
    podman("rmi", "--all", "--force")
    assert len(place.list_fetched()) > before


def test_docker(docker: Client, busybox: Path, place: Place, tmp_path: Path) -> None:
    archive = tmp_path / "base.tar"
    archive.write_bytes(rootfs(busybox, made=b"made"))
    image = f"{place.host}/team/docker:1.0"
    docker("import", str(archive), image)
    docker("push", image)
    docker("rmi", image)
    before = len(place.list_fetched())
    docker("pull", image)
    assert json.loads(docker("image", "inspect", image))[0]["RootFS"]["Layers"]
    docker("rmi", image)
    assert len(place.list_fetched()) > before


def test_curl(client_env: dict[str, str], place: Place) -> None:
    """A range request works, and curl does not send the credentials to the bucket."""
    curl = Client(find_program("curl", "curl"), client_env)
    data = b"0123456789"
    digest = "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    with httpx.Client(base_url=place.server.url, trust_env=False) as http:
        path = f"/v2/team/curl/blobs/uploads/?digest={digest}"
        assert http.post(path, content=data).status_code == 201
    url = f"http://{place.host}/v2/team/curl/blobs/{digest}"
    options = ["--silent", "--show-error", "--fail", "--location", "--noproxy", "*"]
    assert curl(*options, url) == data.decode()
    assert curl(*options, "--range", "3-5", url) == "345"
    assert curl(*options, "--user", "alice:secret", url) == data.decode()
    assert b"\r\nrange: bytes=3-5" in place.list_fetched()[-2].lower()
