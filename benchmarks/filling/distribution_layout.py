"""Tags and repositories in the folders of Distribution."""

import os
from collections.abc import Sequence
from pathlib import Path

REPOSITORIES = "docker/registry/v2/repositories"


def _add_tag(source: Path, tags: Path, name: str) -> None:
    """Create the link of a tag, as a hard link to that of another tag."""
    target = tags / name / "current"
    target.mkdir(parents=True)
    os.link(source / "current" / "link", target / "link")


def add_tags(data: Path, repository: str, tag: str, tags: Sequence[str]) -> None:
    folder = data / REPOSITORIES / repository / "_manifests" / "tags"
    for name in tags:
        _add_tag(folder / tag, folder, name)


def add_repositories(data: Path, repository: str, tag: str, names: Sequence[str]) -> None:
    """Create repositories with one tag."""
    source = data / REPOSITORIES / repository / "_manifests" / "tags" / tag
    for name in names:
        folder = data / REPOSITORIES / name
        _add_tag(source, folder / "_manifests" / "tags", tag)
        (folder / "_layers").mkdir()  # the catalogue of version 2 looks for it
