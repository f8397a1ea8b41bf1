"""The Docker engine with the commands of a new user."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.scenarios.clients.client import Client
from tests.scenarios.clients.images import rootfs
from tests.scenarios.clients.repository import INDEXES, MANIFESTS, Manifest, Repository
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

DOCKERFILE = """\
FROM {base}
WORKDIR /srv
RUN mkdir -p /opt/venv
COPY requirements.txt .
RUN cp requirements.txt /opt/venv/installed
COPY app/ app/
EXPOSE 5000
CMD ["sh", "app/main.sh"]
"""
CLASSIC, BUILDKIT = "0", "1"


@pytest.fixture(autouse=True)
def empty_engine(docker: Client) -> Iterator[None]:
    """Remove all images after each test, so that the next test finds no layers."""
    yield
    forget_images(docker)


def forget_images(docker: Client) -> None:
    docker("container", "prune", "--force")
    docker("image", "prune", "--all", "--force")
    docker("builder", "prune", "--all", "--force")


@pytest.fixture
def base(docker: Client, busybox: Path) -> str:
    docker("import", "-", "base:1", stdin=rootfs(busybox, salt=os.urandom(2_000_000)))
    return "base:1"


def build(docker: Client, folder: Path, base: str, image: str, builder: str = CLASSIC) -> None:
    (folder / "app").mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base))
    (folder / "requirements.txt").write_text("flask==3.1\n")
    (folder / "app" / "main.sh").write_text("cat /opt/venv/installed\necho served\n")
    options = ["--network", "none", "--tag", image]
    docker("build", *options, str(folder), DOCKER_BUILDKIT=builder)


def push(docker: Client, image: str) -> str:
    """Push and return the digest that Docker reports."""
    return pushed_digest(docker("push", image))


def pushed_digest(output: str) -> str:
    match = re.search(r"digest: (sha256:[0-9a-f]{64})", output)
    assert match, output
    return match[1]


def image_id(docker: Client, image: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", image).strip()


def run(docker: Client, image: str) -> str:
    return docker("run", "--rm", "--network", "none", image)


def fetched_layers(output: str, manifest: Manifest) -> list[str]:
    """Return the layers that a pull downloaded."""
    return [
        layer
        for layer in manifest.layers
        if f"{layer.removeprefix('sha256:')[:12]}: Pull complete" in output
    ]


@pytest.mark.replicas
@pytest.mark.parametrize("builder", [CLASSIC, BUILDKIT], ids=["classic", "buildkit"])
def test_web_app_is_built_pushed_pulled_and_run(
    docker: Client, base: str, repository: Repository, tmp_path: Path, builder: str
) -> None:
    image = f"{repository.name}:1.0"
    build(docker, tmp_path, base, image, builder)
    built = image_id(docker, image)

    pushed = push(docker, image)

    manifest = repository.manifest("1.0")
    assert manifest.media_type == MANIFESTS["v2s2"]
    assert manifest.digest == pushed
    assert manifest.config == built
    for digest in [manifest.config, *manifest.layers]:
        repository.blob(digest)

    forget_images(docker)
    docker.refused("image", "inspect", built)
    pulled = docker("pull", image)

    assert fetched_layers(pulled, manifest) == manifest.layers
    assert image_id(docker, image) == built
    assert run(docker, image) == "flask==3.1\nserved\n"


def test_pull_by_digest(docker: Client, base: str, repository: Repository) -> None:
    docker("tag", base, f"{repository.name}:1.0")
    pushed = push(docker, f"{repository.name}:1.0")
    forget_images(docker)

    docker("pull", f"{repository.name}@{pushed}")

    assert image_id(docker, f"{repository.name}@{pushed}") == repository.manifest(pushed).config


@pytest.mark.replicas
def test_second_push_sends_no_layer(
    docker: Client, base: str, repository: Repository, tmp_path: Path
) -> None:
    build(docker, tmp_path, base, f"{repository.name}:1.0")
    first = push(docker, f"{repository.name}:1.0")

    second = docker("push", f"{repository.name}:1.0")

    assert pushed_digest(second) == first
    assert "Pushed" not in second
    layers = repository.manifest("1.0").layers
    assert second.count("Layer already exists") == len(layers) > 1


@pytest.mark.replicas
def test_push_to_second_repository_mounts_every_layer(
    docker: Client, base: str, repository: Repository, tmp_path: Path
) -> None:
    build(docker, tmp_path, base, f"{repository.name}:1.0")
    first = push(docker, f"{repository.name}:1.0")
    second = repository.below("second")
    docker("tag", f"{repository.name}:1.0", f"{second.name}:1.0")

    output = docker("push", f"{second.name}:1.0")

    assert pushed_digest(output) == first
    manifest = second.manifest("1.0")
    assert output.count(f"Mounted from {repository.path}") == len(manifest.layers) > 1
    for layer in manifest.layers:
        assert second.blob(layer) == repository.blob(layer)


def test_committed_container_adds_one_layer(
    docker: Client, base: str, repository: Repository
) -> None:
    docker("tag", base, f"{repository.name}:1")
    push(docker, f"{repository.name}:1")
    docker("run", "--name=changed", "--network=none", base, "sh", "-c", "echo kept > /state")
    docker("commit", "--change", 'CMD ["cat", "/state"]', "changed", f"{repository.name}:2")

    push(docker, f"{repository.name}:2")

    before, after = repository.manifest("1"), repository.manifest("2")
    assert after.layers[:-1] == before.layers
    forget_images(docker)
    docker("pull", f"{repository.name}:2")
    assert run(docker, f"{repository.name}:2") == "kept\n"


@pytest.mark.replicas
def test_tags_and_repositories_are_listed(
    docker: Client, base: str, repository: Repository
) -> None:
    for tag in ["1.0", "latest", "1.1"]:
        docker("tag", base, f"{repository.name}:{tag}")
    docker("push", "--all-tags", repository.name)
    docker("tag", base, f"{repository.name}/other:1")
    push(docker, f"{repository.name}/other:1")

    assert repository.tags() == ["1.0", "1.1", "latest"]
    assert repository.catalog() == [repository.path, f"{repository.path}/other"]


@pytest.mark.replicas
def test_pull_fails_after_deletion(docker: Client, base: str, repository: Repository) -> None:
    docker("tag", base, f"{repository.name}:gone")
    deleted = push(docker, f"{repository.name}:gone")
    docker("commit", docker("create", base, "true").strip(), f"{repository.name}:kept")
    kept = push(docker, f"{repository.name}:kept")

    repository.delete(deleted)

    forget_images(docker)
    assert "manifest unknown" in docker.refused("pull", f"{repository.name}:gone")
    assert "manifest unknown" in docker.refused("pull", f"{repository.name}@{deleted}")
    assert repository.tags() == ["kept"]
    docker("pull", f"{repository.name}@{kept}")


def test_manifest_is_inspected(docker: Client, base: str, repository: Repository) -> None:
    docker("tag", base, f"{repository.name}:1.0")
    push(docker, f"{repository.name}:1.0")

    seen = json.loads(docker("manifest", "inspect", "--insecure", f"{repository.name}:1.0"))

    assert seen == repository.manifest("1.0").document


def test_list_of_two_platforms(docker: Client, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /\n")
    built = {}
    for architecture in ["amd64", "arm64"]:
        (tmp_path / "content").write_bytes(os.urandom(50_000))
        image = f"{repository.name}:1.0-{architecture}"
        options = ["--platform", f"linux/{architecture}", "--tag", image]
        docker("build", *options, str(tmp_path), DOCKER_BUILDKIT=BUILDKIT)
        built[architecture] = image_id(docker, image)
        push(docker, image)
    images = [f"{repository.name}:1.0-{architecture}" for architecture in built]
    docker("manifest", "create", "--insecure", f"{repository.name}:1.0", *images)

    pushed = docker("manifest", "push", "--insecure", f"{repository.name}:1.0").strip()

    index = repository.manifest("1.0")
    assert index.media_type == INDEXES["v2s2"]
    assert index.digest == pushed
    for architecture, expected in built.items():
        forget_images(docker)
        docker("pull", "--platform", f"linux/{architecture}", f"{repository.name}:1.0")
        assert image_id(docker, f"{repository.name}:1.0") == expected


def test_pushes_while_the_collector_runs(docker: Client, busybox: Path, tmp_path: Path) -> None:
    """Layers of deleted images can be pushed again, whether or not they are already collected."""
    settings = {
        "MOORAGE_GC__GRACE_PERIOD": "5s",
        "MOORAGE_GC__INTERVAL": "200ms",
        "MOORAGE_GC__UNTAGGED": "delete",
    }
    contents = [os.urandom(100_000) for _ in range(3)]
    with (
        serving(Server(tmp_path / "collecting", settings=settings)) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        image = f"localhost:{server.port}/team/app:latest"
        deadline = time.monotonic() + 120
        pushes, digest = 0, ""
        while pushes < 6 or count_collected(http) < 2:
            assert time.monotonic() < deadline
            docker("import", "-", image, stdin=rootfs(busybox, salt=contents[pushes % 3]))
            digest = push(docker, image)
            pushes += 1
            if pushes % 3:
                assert http.delete(f"/v2/team/app/manifests/{digest}").status_code == 202
            time.sleep(1)
        docker("import", "-", image, stdin=rootfs(busybox, salt=contents[0]))
        digest = push(docker, image)
        time.sleep(7)  # slightly longer than the grace period
        forget_images(docker)
        assert digest in docker("pull", image)


def count_collected(http: httpx.Client) -> float:
    """Return how many blobs the garbage collection has deleted."""
    line = r'^moorage_gc_collected_total\{kind="blob"\} (\S+)'
    found = re.search(line, http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0
