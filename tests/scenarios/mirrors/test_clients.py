"""Real clients that pull images of another registry, each through its own settings of mirrors."""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.scenarios.clients.client import PATH, Client, find_program, need_root
from tests.scenarios.clients.conftest import container_storage, short_folder
from tests.scenarios.clients.engine import running_engine
from tests.scenarios.clients.images import two_platforms
from tests.scenarios.mirrors.containerd import running_containerd
from tests.support.servers import launcher
from tests.support.servers.debian_registry import DebianRegistry, debian_registry
from tests.support.servers.server import Server, serving
from tests.support.servers.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("mirror clients")]

HOST = "docker.io"


@dataclass(frozen=True)
class Site:
    """A registry that stands for Docker Hub, our mirror of it, and the connection between them."""

    hub: DebianRegistry
    proxy: TcpProxy
    mirror: Server
    home: Path
    env: dict[str, str]

    @property
    def address(self) -> str:
        return f"localhost:{self.mirror.port}"

    def moorage(self, *arguments: str) -> None:
        """Run a command on the data of the mirror."""
        done = launcher.run(*arguments, "--data", str(self.mirror.data), cwd=self.mirror.data)
        assert done.returncode == 0, done.stderr

    def count_pulls(self, image: "Published", digest: str) -> int:
        """Return how often the hub was asked for a manifest of the image."""
        return self.hub.count(f"GET /v2/{image.name}/manifests/{digest}")

    def publish(self) -> "Published":
        """Push an image for two platforms to the hub, and return its name there."""
        name = f"library/app-{uuid.uuid4().hex[:8]}"
        layout = two_platforms(self.home / name.replace("/", "-"), "1")
        skopeo = Client(find_program("skopeo", "skopeo"), self.env)
        target = f"docker://{self.hub.url.removeprefix('http://')}/{name}:1"
        skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout.folder}:1", target)
        children = json.loads(
            (layout.folder / "blobs" / layout.index[0]["digest"].replace(":", "/")).read_text()
        )["manifests"]
        return Published(name, children[0]["digest"], children[1]["digest"])


@dataclass(frozen=True)
class Published:
    """An image of the hub, with the digests of its manifests."""

    name: str
    amd64: str
    arm64: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "hub").mkdir()
    mirror = Server(folder / "mirror")
    mirror.data.mkdir()
    with (
        debian_registry(folder / "hub") as hub,
        tcp_proxy(("127.0.0.1", int(hub.url.rsplit(":", 1)[1]))) as proxy,
        serving(mirror),
        short_folder() as home,
    ):
        url = f"http://127.0.0.1:{proxy.port}"
        options = ["--upstream", url, "--host", HOST, "--allow-private", "--tag-ttl", "0s"]
        env = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)}
        settings = home / ".config" / "containers"
        settings.mkdir(parents=True)
        anything = {"default": [{"type": "insecureAcceptAnything"}]}
        (settings / "policy.json").write_text(json.dumps(anything))
        site = Site(hub, proxy, mirror, home, env)
        site.moorage("mirror", "add", HOST, *options)
        yield site


def write_registries(site: Site, options: str = "") -> None:
    """Write the settings of mirrors for podman, skopeo and buildah."""
    (site.home / ".config" / "containers" / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{HOST}"\n\n'
        f'[[registry.mirror]]\nlocation = "{site.address}/{HOST}"\ninsecure = true\n{options}'
    )


@pytest.fixture(scope="module")
def podman(site: Site) -> Iterator[Client]:
    need_root("podman")
    with container_storage(site.env) as env:
        yield Client(find_program("podman", "podman"), env)


@pytest.fixture(scope="module")
def containerd(site: Site) -> Iterator[Client]:
    with short_folder() as folder, running_containerd(folder, site.env) as client:
        yield client


@pytest.fixture(scope="module")
def docker(site: Site) -> Iterator[Client]:
    settings = {"registry-mirrors": [f"http://{site.address}"]}
    with short_folder() as folder, running_engine(folder, site.env, settings) as client:
        yield client


def test_podman(site: Site, podman: Client) -> None:
    image = site.publish()
    write_registries(site)
    reference = f"{HOST}/{image.name}:1"
    podman("pull", "--quiet", reference)
    inspected = json.loads(podman("image", "inspect", reference))[0]
    assert image.amd64 in " ".join(inspected["RepoDigests"])
    assert site.count_pulls(image, image.amd64) == 1
    assert site.count_pulls(image, image.arm64) == 0


def test_podman_pulls_by_digest_alone(site: Site, podman: Client) -> None:
    """With `pull-from-mirror`, a tag is resolved elsewhere."""
    image = site.publish()
    write_registries(site, 'pull-from-mirror = "digest-only"\n')
    reference = f"{HOST}/{image.name}@{image.amd64}"
    podman("pull", "--quiet", reference)
    assert podman("image", "exists", reference) == ""


def test_skopeo(site: Site, tmp_path: Path) -> None:
    image = site.publish()
    write_registries(site)
    skopeo = Client(find_program("skopeo", "skopeo"), site.env)
    skopeo(
        "--debug", "copy", "--all", f"docker://{HOST}/{image.name}:1", f"oci:{tmp_path / 'copy'}:1"
    )
    blobs = {path.name for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir()}
    assert {image.amd64, image.arm64} <= {f"sha256:{name}" for name in blobs}


def hosts_toml(site: Site, registry: str, address: str, options: str = "") -> Path:
    """Write the settings of hosts for one registry, and return the folder of all."""
    folder = site.home / f"certs-{uuid.uuid4().hex[:8]}"
    (folder / registry).mkdir(parents=True)
    (folder / registry / "hosts.toml").write_text(
        f'[host."http://{address}"]\n  capabilities = ["pull", "resolve"]\n{options}'
    )
    return folder


CONTAINERD = {
    "ns": (HOST, "", ""),
    "ns for all registries": ("_default", "", ""),
    "path": (HOST, f"/{HOST}", ""),
    "path and ns": (HOST, f"/v2/{HOST}", "  override_path = true\n"),
}


@pytest.mark.parametrize("way", CONTAINERD)
def test_containerd(site: Site, containerd: Client, way: str) -> None:
    registry, path, options = CONTAINERD[way]
    image = site.publish()
    folder = hosts_toml(site, registry, site.address + path, options)
    reference = f"{HOST}/{image.name}:1"
    containerd("images", "pull", "--snapshotter=native", f"--hosts-dir={folder}", reference)
    assert image.name in containerd("images", "ls")
    assert site.count_pulls(image, image.amd64) == 1
    assert site.count_pulls(image, image.arm64) == 0


def test_docker(site: Site, docker: Client) -> None:
    image = site.publish()
    reference = f"{site.address}/{HOST}/{image.name}:1"
    told = docker("pull", reference)
    assert re.search("Digest: sha256:[0-9a-f]{64}", told)
    assert reference in docker("images", "--format={{.Repository}}:{{.Tag}}")
    assert site.count_pulls(image, image.amd64) == 1
    assert site.count_pulls(image, image.arm64) == 0


@pytest.mark.parametrize("prefix", ["", "docker.io/"])
def test_docker_with_a_registry_mirror(site: Site, docker: Client, prefix: str) -> None:
    """The engine sends the name alone, which goes to the default mirror."""
    image = site.publish()
    site.moorage("mirror", "default", HOST, "--without-ns")
    try:
        docker("pull", f"{prefix}{image.name.removeprefix('library/')}:1")
    finally:
        site.moorage("mirror", "default", "refuse")
    assert site.count_pulls(image, image.amd64) == 1


def test_everything_is_served_while_the_hub_is_down(
    site: Site, podman: Client, containerd: Client, docker: Client
) -> None:
    image = site.publish()
    reference, prefixed = f"{HOST}/{image.name}:1", f"{site.address}/{HOST}/{image.name}:1"
    write_registries(site)
    folder = hosts_toml(site, HOST, site.address)

    def pull_with_each() -> None:
        podman("pull", "--quiet", reference)
        podman("rmi", reference)
        containerd(*("images", "pull", "--snapshotter=native", f"--hosts-dir={folder}", reference))
        containerd("images", "rm", "--sync", reference)
        docker("pull", prefixed)
        docker("rmi", prefixed)

    pull_with_each()
    site.proxy.refuse()
    try:
        pull_with_each()
    finally:
        site.proxy.accept()
