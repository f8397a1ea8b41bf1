"""Skopeo: images copied between registries and folders with unchanged digests."""

import gzip
import json
from pathlib import Path

import pytest

from tests.scenarios.clients.client import Client
from tests.scenarios.clients.images import Layout, two_platforms
from tests.scenarios.clients.repository import INDEXES, MANIFESTS, OCI, Repository, digest_of

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("clients")]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return two_platforms(tmp_path / "source", "1.0")


@pytest.fixture
def source(layout: Layout) -> str:
    return f"oci:{layout.folder}:1.0"


def blobs(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (layout / "blobs" / "sha256").iterdir()}


@pytest.mark.replicas
def test_list_returns_byte_for_byte(
    skopeo: Client, layout: Layout, source: str, repository: Repository
) -> None:
    returned = layout.folder.parent / "returned"
    options = ["--all", "--preserve-digests"]

    skopeo("copy", *options, source, f"docker://{repository.name}:1.0")
    skopeo("copy", *options, f"docker://{repository.name}:1.0", f"oci:{returned}:1.0")

    index = repository.manifest("1.0")
    assert index.digest == layout.index[0]["digest"]
    assert index.media_type == INDEXES["oci"]
    assert blobs(returned) == blobs(layout.folder)


def test_image_in_a_folder_goes_there_and_back(
    skopeo: Client, source: str, repository: Repository, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    skopeo("copy", "--override-arch=arm64", source, f"dir:{first}")

    skopeo("copy", "--preserve-digests", f"dir:{first}", f"docker://{repository.name}:arm")
    skopeo("copy", "--override-arch=arm64", f"docker://{repository.name}:arm", f"dir:{second}")

    contents = [{path.name: path.read_bytes() for path in d.iterdir()} for d in (first, second)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 5  # version, manifest.json, a config and two layers


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_formats(
    skopeo: Client, source: str, repository: Repository, tmp_path: Path, form: str
) -> None:
    digest_file = tmp_path / "digest"
    options = ["--all", f"--format={form}", f"--digestfile={digest_file}"]

    skopeo("copy", *options, source, f"docker://{repository.name}:1")

    index = repository.manifest("1")
    assert index.digest == digest_file.read_text()
    assert index.media_type == INDEXES[form]
    architectures = []
    for entry in index.document["manifests"]:
        image = repository.manifest(entry["digest"])
        assert image.media_type == entry["mediaType"] == MANIFESTS[form]
        config = json.loads(repository.blob(image.config))
        architectures.append(config["architecture"])
        unpacked = [gzip.decompress(repository.blob(layer)) for layer in image.layers]
        assert [digest_of(layer) for layer in unpacked] == config["rootfs"]["diff_ids"]
    assert architectures == ["amd64", "arm64"]


def test_inspect(skopeo: Client, source: str, repository: Repository) -> None:
    skopeo("copy", "--all", source, f"docker://{repository.name}:1.0")
    skopeo("copy", "--override-arch=amd64", source, f"docker://{repository.name}:amd")

    raw = skopeo("inspect", "--raw", f"docker://{repository.name}:1.0")
    seen = json.loads(skopeo("inspect", "--override-arch=arm64", f"docker://{repository.name}:1.0"))
    config = skopeo("inspect", "--config", "--raw", f"docker://{repository.name}:amd")

    index = repository.manifest("1.0")
    assert raw.encode() == index.content
    arm = repository.manifest(index.document["manifests"][1]["digest"])
    assert seen["Digest"] == index.digest
    assert seen["Architecture"] == "arm64"
    assert seen["Layers"] == arm.layers
    assert seen["RepoTags"] == ["1.0", "amd"]
    assert config.encode() == repository.blob(repository.manifest("amd").config)


@pytest.mark.replicas
def test_deleted_tag_is_gone_and_the_others_stay(
    skopeo: Client, source: str, repository: Repository
) -> None:
    skopeo("copy", "--override-arch=amd64", source, f"docker://{repository.name}:kept")
    for tag in ["gone", "gone-too"]:
        skopeo("copy", "--override-arch=arm64", source, f"docker://{repository.name}:{tag}")
    deleted = repository.manifest("gone").digest
    assert listed(skopeo, repository) == ["gone", "gone-too", "kept"]

    skopeo("delete", f"docker://{repository.name}:gone")

    # Skopeo deletes by digest, which removes all tags of the manifest.
    assert listed(skopeo, repository) == ["kept"]
    for reference in [":gone", ":gone-too", f"@{deleted}"]:
        assert "manifest unknown" in skopeo.refused(
            "inspect", "--raw", f"docker://{repository.name}{reference}"
        )
    skopeo("inspect", f"docker://{repository.name}:kept")


def listed(skopeo: Client, repository: Repository) -> list[str]:
    tags: list[str] = json.loads(skopeo("list-tags", f"docker://{repository.name}"))["Tags"]
    return tags


def test_zstd_layers(skopeo: Client, source: str, repository: Repository, tmp_path: Path) -> None:
    target = f"docker://{repository.name}:zstd"
    skopeo("copy", "--all", "--dest-compress-format=zstd", source, target)

    index = repository.manifest("zstd")
    for entry in index.document["manifests"]:
        image = repository.manifest(entry["digest"])
        packings = {layer["mediaType"] for layer in image.document["layers"]}
        assert packings == {f"{OCI}.layer.v1.tar+zstd"}
        for layer in image.layers:
            assert repository.blob(layer).startswith(ZSTD_MAGIC)

    returned = tmp_path / "returned"
    options = ["--override-arch=arm64", "--dest-decompress"]
    skopeo("copy", *options, target, f"dir:{returned}")
    arm = repository.manifest(index.document["manifests"][1]["digest"])
    diff_ids = json.loads(repository.blob(arm.config))["rootfs"]["diff_ids"]
    for diff_id in diff_ids:
        content = (returned / diff_id.removeprefix("sha256:")).read_bytes()
        assert digest_of(content) == diff_id


@pytest.mark.replicas
def test_copy_between_repositories(
    skopeo: Client, layout: Layout, source: str, repository: Repository
) -> None:
    skopeo("copy", "--all", source, f"docker://{repository.name}:1.0")

    other = repository.below("other")
    options = ["--all", "--preserve-digests"]
    skopeo("copy", *options, f"docker://{repository.name}:1.0", f"docker://{other.name}:2.0")

    assert other.manifest("2.0").digest == layout.index[0]["digest"]
    returned = layout.folder.parent / "returned"
    skopeo("copy", "--all", f"docker://{other.name}:2.0", f"oci:{returned}:2.0")
    assert blobs(returned) == blobs(layout.folder)


@pytest.mark.replicas
def test_sync_of_all_tags(
    skopeo: Client, source: str, repository: Repository, tmp_path: Path
) -> None:
    tags = ["1.0", "1.1"]
    for tag in tags:
        skopeo("copy", "--all", source, f"docker://{repository.name}:{tag}")
    away, synced = str(tmp_path / "away"), repository.below("synced")

    skopeo("sync", "--all", "--src=docker", "--dest=dir", repository.name, away)
    skopeo("sync", "--all", "--src=dir", "--dest=docker", away, synced.name)

    copied = synced.below(repository.path.rsplit("/", 1)[-1])
    assert copied.tags() == tags
    for tag in tags:
        assert copied.manifest(tag) == repository.manifest(tag)
