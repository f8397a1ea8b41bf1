"""Tags and repositories in the folders of Distribution."""

from collections.abc import Sequence
from pathlib import Path

REPOSITORIES = "docker/registry/v2/repositories"


def _add_tag(link: bytes, tags: Path, name: str) -> None:
    """Create a tag. `link` is the content of its file, the digest."""
    target = tags / name / "current"
    target.mkdir(parents=True)
    (target / "link").write_bytes(link)


def add_tags(data: Path, repository: str, tag: str, tags: Sequence[str]) -> None:
    folder = data / REPOSITORIES / repository / "_manifests" / "tags"
    link = (folder / tag / "current" / "link").read_bytes()
    for name in tags:
        _add_tag(link, folder, name)


def add_repositories(data: Path, repository: str, tag: str, names: Sequence[str]) -> None:
    """Create repositories with one tag."""
    source = data / REPOSITORIES / repository / "_manifests" / "tags" / tag
    link = (source / "current" / "link").read_bytes()
    for name in names:
        folder = data / REPOSITORIES / name
        _add_tag(link, folder / "_manifests" / "tags", tag)
        (folder / "_layers").mkdir()  # the catalogue of version 2 looks for it
