"""A registry with one admin, and runners of commands on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.moorage import PASSWORD, Moorage, at
from tests.support.servers.server import Server, serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return the data directory of a registry with one user, an admin."""
    folder = tmp_path / "data"
    at(folder).run("user", "add", "root", "--admin", "--password-stdin", typed=PASSWORD + "\n")
    return folder


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with serving(Server(data)) as started:
        yield started


@pytest.fixture(params=["here", "there"])
def moorage(request: pytest.FixtureRequest, data: Path) -> Moorage:
    """Return a runner of commands on the data directory, and one through the API."""
    if request.param == "here":
        return at(data)
    server: Server = request.getfixturevalue("server")
    where = ["--url", server.url, "--user", "root"]
    return Moorage(data.parent, where, {"MOORAGE_PASSWORD": PASSWORD})
