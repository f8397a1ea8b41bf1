"""Tags and repositories that are written to the data of a stopped registry."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.clients.setup import UnsupportedError
from benchmarks.filling import distribution_layout, moorage_rows, oci_layout
from benchmarks.registries.registry import Layout
from benchmarks.registries.server import Server

Add = Callable[[Path, str, str, Sequence[str]], None]

TAGS: dict[Layout, Add] = {
    Layout.MOORAGE: moorage_rows.add_tags,
    Layout.DISTRIBUTION: distribution_layout.add_tags,
    Layout.OCI: oci_layout.add_tags,
}
REPOSITORIES: dict[Layout, Add] = {
    Layout.MOORAGE: moorage_rows.add_repositories,
    Layout.DISTRIBUTION: distribution_layout.add_repositories,
    Layout.OCI: oci_layout.add_repositories,
}


def _fill(
    adders: dict[Layout, Add], server: Server, repository: str, tag: str, names: Sequence[str]
) -> None:
    add = adders.get(server.registry.layout)
    if add is None:
        raise UnsupportedError("the format of the data is unknown, so it cannot be filled")
    add(server.place.data, repository, tag, names)


def fill_tags(server: Server, repository: str, tag: str, names: Sequence[str]) -> None:
    """Add tags that point at the manifest of an existing tag."""
    _fill(TAGS, server, repository, tag, names)


def fill_repositories(server: Server, repository: str, tag: str, names: Sequence[str]) -> None:
    """Add repositories that resemble an existing one."""
    _fill(REPOSITORIES, server, repository, tag, names)
