"""Buildah: images built step by step, and manifest lists for several platforms."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.clients.client import Client
from tests.scenarios.clients.images import rootfs
from tests.scenarios.clients.repository import INDEXES, MANIFESTS, Repository

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]


@pytest.fixture(autouse=True)
def empty_storage(buildah: Client) -> Iterator[None]:
    yield
    forget_images(buildah)


def forget_images(buildah: Client) -> None:
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")


@pytest.fixture
def archive(busybox: Path, tmp_path: Path) -> Path:
    """Return a root file system with a shell, different in each test."""
    path = tmp_path / "rootfs.tar"
    path.write_bytes(rootfs(busybox, salt=os.urandom(500_000)))
    return path


def build(buildah: Client, archive: Path, image: str, note: str) -> str:
    """Commit an image in which a step wrote a note, and return its ID."""
    container = buildah("from", "scratch").strip()
    buildah("add", container, str(archive), "/")
    buildah("run", container, "sh", "-c", f"echo {note} > /note")
    buildah("commit", "--quiet", container, image)
    return image_id(buildah, image)


def image_id(buildah: Client, image: str) -> str:
    return f"sha256:{buildah('images', '--no-trunc', '--quiet', image).strip().split(':')[-1]}"


def note_in(buildah: Client, image: str, *options: str) -> str:
    container = buildah("from", "--pull-never", *options, image).strip()
    return (Path(buildah("mount", container).strip()) / "note").read_text()


def push(buildah: Client, folder: Path, image: str, *options: str) -> str:
    """Push and return the digest that buildah reports."""
    buildah("push", *options, f"--digestfile={folder / 'digest'}", image)
    return (folder / "digest").read_text()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_image_is_built_pushed_and_pulled(
    buildah: Client, archive: Path, repository: Repository, tmp_path: Path, form: str
) -> None:
    build(buildah, archive, f"{repository.name}:1.0", "first")

    pushed = push(buildah, tmp_path, f"{repository.name}:1.0", f"--format={form}")

    manifest = repository.manifest("1.0")
    assert manifest.digest == pushed
    assert manifest.media_type == MANIFESTS[form]
    assert repository.tags() == ["1.0"]
    assert repository.catalog() == [repository.path]
    forget_images(buildah)
    buildah("pull", f"{repository.name}:1.0")
    assert image_id(buildah, f"{repository.name}:1.0") == manifest.config
    assert note_in(buildah, f"{repository.name}:1.0") == "first\n"


@pytest.mark.replicas
def test_image_on_top_of_a_pulled_one_adds_one_layer(
    buildah: Client, archive: Path, repository: Repository, tmp_path: Path
) -> None:
    build(buildah, archive, f"{repository.name}:1", "first")
    push(buildah, tmp_path, f"{repository.name}:1")
    forget_images(buildah)

    container = buildah("from", f"{repository.name}:1").strip()
    buildah("run", container, "sh", "-c", "echo second >> /note")
    buildah("commit", "--quiet", container, f"{repository.name}:2")
    push(buildah, tmp_path, f"{repository.name}:2")

    before, after = repository.manifest("1"), repository.manifest("2")
    assert len(after.layers) == len(before.layers) + 1
    assert after.layers[:-1] == before.layers
    forget_images(buildah)
    buildah("pull", f"{repository.name}:2")
    assert note_in(buildah, f"{repository.name}:2") == "first\nsecond\n"


def test_list_of_two_platforms(
    buildah: Client, archive: Path, repository: Repository, tmp_path: Path
) -> None:
    built = {}
    for architecture in ["amd64", "arm64"]:
        container = buildah("from", f"--arch={architecture}", "scratch").strip()
        (tmp_path / "note").write_text(architecture)
        buildah("add", container, str(archive), "/")
        buildah("copy", container, str(tmp_path / "note"), "/note")
        buildah("config", f"--arch={architecture}", "--os=linux", container)
        committed = buildah("commit", "--quiet", f"--manifest={repository.name}:1.0", container)
        built[architecture] = f"sha256:{committed.strip()}"

    buildah(
        *("manifest", "push", "--all", f"--digestfile={tmp_path / 'digest'}"),
        *(f"{repository.name}:1.0", f"docker://{repository.name}:1.0"),
    )

    index = repository.manifest("1.0")
    assert index.media_type == INDEXES["oci"]
    assert index.digest == (tmp_path / "digest").read_text()
    configs = {
        entry["platform"]["architecture"]: repository.manifest(entry["digest"]).config
        for entry in index.document["manifests"]
    }
    assert configs == built
    for architecture, expected in built.items():
        forget_images(buildah)
        buildah("pull", f"--arch={architecture}", f"{repository.name}:1.0")
        assert image_id(buildah, f"{repository.name}:1.0") == expected
        assert note_in(buildah, f"{repository.name}:1.0", f"--arch={architecture}") == architecture


def test_pull_fails_after_deletion(
    buildah: Client, archive: Path, repository: Repository, tmp_path: Path
) -> None:
    build(buildah, archive, f"{repository.name}:kept", "kept")
    build(buildah, archive, f"{repository.name}:gone", "gone")
    push(buildah, tmp_path, f"{repository.name}:kept")
    deleted = push(buildah, tmp_path, f"{repository.name}:gone")

    repository.delete(deleted)

    forget_images(buildah)
    assert "manifest unknown" in buildah.refused("pull", f"{repository.name}:gone")
    assert "manifest unknown" in buildah.refused("pull", f"{repository.name}@{deleted}")
    assert repository.tags() == ["kept"]
    buildah("pull", f"{repository.name}:kept")
    assert note_in(buildah, f"{repository.name}:kept") == "kept\n"
