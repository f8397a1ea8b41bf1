"""Podman: OCI manifests by default, Docker's on request, layers compressed with gzip or zstd."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.clients.client import Client
from tests.scenarios.clients.images import rootfs
from tests.scenarios.clients.repository import INDEXES, MANIFESTS, OCI, Repository

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.fixture(autouse=True)
def empty_storage(podman: Client) -> Iterator[None]:
    yield
    forget_images(podman)


def forget_images(podman: Client) -> None:
    podman("rmi", "--all", "--force")


@pytest.fixture
def base(podman: Client, busybox: Path, tmp_path: Path) -> str:
    """Return the ID of an image with a shell, different in each test."""
    archive = tmp_path / "base.tar"
    archive.write_bytes(rootfs(busybox, salt=os.urandom(500_000)))
    return podman("import", "--quiet", str(archive)).strip()


def build(podman: Client, folder: Path, base: str, image: str) -> str:
    """Build an image that prints what a step wrote, and return its ID."""
    containerfile = f'FROM {base}\nRUN echo made > /made\nCMD ["cat", "/made"]\n'
    (folder / "Containerfile").write_text(containerfile)
    (folder / "context").mkdir()
    podman(
        *("build", "--network=none", f"--file={folder / 'Containerfile'}", f"--tag={image}"),
        str(folder / "context"),
    )
    return image_id(podman, image)


def image_id(podman: Client, image: str) -> str:
    return f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', image).strip()}"


def push(podman: Client, folder: Path, image: str, *options: str) -> str:
    """Push and return the digest that podman reports."""
    podman("push", *options, f"--digestfile={folder / 'digest'}", image)
    return (folder / "digest").read_text()


def listed_tags(podman: Client, repository: Repository) -> list[str]:
    """Return the second column of the table, because podman ignores a requested format here."""
    heading, *lines = podman("search", "--list-tags", repository.name).splitlines()
    assert heading.split() == ["NAME", "TAG"]
    return [line.split()[1] for line in lines]


def run(podman: Client, image: str) -> str:
    return podman("run", "--rm", "--network=none", image)


@pytest.mark.replicas
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_image_is_built_pushed_pulled_and_run(
    podman: Client, base: str, repository: Repository, tmp_path: Path, form: str
) -> None:
    image = f"{repository.name}:1.0"
    build(podman, tmp_path, base, image)

    pushed = push(podman, tmp_path, image, f"--format={form}")

    manifest = repository.manifest("1.0")
    assert manifest.digest == pushed
    assert manifest.media_type == MANIFESTS[form]
    for digest in [manifest.config, *manifest.layers]:
        repository.blob(digest)
    forget_images(podman)
    podman("pull", image)
    assert image_id(podman, image) == manifest.config
    assert run(podman, image) == "made\n"


def test_zstd_layers(podman: Client, base: str, repository: Repository, tmp_path: Path) -> None:
    image = f"{repository.name}:zstd"
    built = build(podman, tmp_path, base, image)

    push(podman, tmp_path, image, "--compression-format=zstd")

    manifest = repository.manifest("zstd")
    packings = {layer["mediaType"] for layer in manifest.document["layers"]}
    assert packings == {f"{OCI}.layer.v1.tar+zstd"}
    for layer in manifest.layers:
        assert repository.blob(layer).startswith(ZSTD_MAGIC)
    forget_images(podman)
    podman("pull", image)
    assert image_id(podman, image) == built
    assert run(podman, image) == "made\n"


def test_list_of_two_platforms(
    podman: Client, base: str, repository: Repository, tmp_path: Path
) -> None:
    built = {}
    podman("manifest", "create", f"{repository.name}:1.0")
    for architecture in ["amd64", "arm64"]:
        image = f"{repository.name}:1.0-{architecture}"
        content = tmp_path / architecture
        content.write_text(f"FROM {base}\nLABEL for={architecture}\n")
        platform = f"--platform=linux/{architecture}"
        podman("build", platform, f"--file={content}", f"--tag={image}", str(tmp_path))
        built[architecture] = image_id(podman, image)
        podman("manifest", "add", f"{repository.name}:1.0", f"containers-storage:{image}")

    podman(
        *("manifest", "push", "--all", f"--digestfile={tmp_path / 'digest'}"),
        *(f"{repository.name}:1.0", f"docker://{repository.name}:1.0"),
    )

    index = repository.manifest("1.0")
    assert index.media_type == INDEXES["oci"]
    assert index.digest == (tmp_path / "digest").read_text()
    assert repository.tags() == ["1.0"]
    configs = {
        entry["platform"]["architecture"]: repository.manifest(entry["digest"]).config
        for entry in index.document["manifests"]
    }
    assert configs == built
    for architecture, expected in built.items():
        forget_images(podman)
        podman("pull", f"--arch={architecture}", f"{repository.name}:1.0")
        assert image_id(podman, f"{repository.name}:1.0") == expected


def test_tags_and_repositories_are_listed(
    podman: Client, base: str, repository: Repository
) -> None:
    for tag in ["1.0", "latest", "1.1"]:
        podman("push", base, f"{repository.name}:{tag}")
    podman("push", base, f"{repository.name}/other:1")

    found = podman("search", "--format={{.Name}}", repository.name)

    assert listed_tags(podman, repository) == ["1.0", "1.1", "latest"]
    assert found.split() == [repository.name, f"{repository.name}/other"]


@pytest.mark.replicas
def test_pull_fails_after_deletion(
    podman: Client, base: str, repository: Repository, tmp_path: Path
) -> None:
    build(podman, tmp_path, base, f"{repository.name}:kept")
    podman("tag", base, f"{repository.name}:gone")
    push(podman, tmp_path, f"{repository.name}:kept")
    deleted = push(podman, tmp_path, f"{repository.name}:gone")

    repository.delete(deleted)

    forget_images(podman)
    assert "manifest unknown" in podman.refused("pull", f"{repository.name}:gone")
    assert "manifest unknown" in podman.refused("pull", f"{repository.name}@{deleted}")
    assert listed_tags(podman, repository) == ["kept"]
    podman("pull", f"{repository.name}:kept")
    assert run(podman, f"{repository.name}:kept") == "made\n"
