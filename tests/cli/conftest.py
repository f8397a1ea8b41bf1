"""A registry with one admin, and runners of commands on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.moorage import PASSWORD, Moorage, at
from tests.support.servers.server import Server, serving


@pytest.fixture(scope="session")
def data_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of a registry with one user, an admin."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    at(folder).run("user", "add", "root", "--admin", "--password-stdin", typed=PASSWORD + "\n")
    return folder


@pytest.fixture
def data(data_template: Path, tmp_path: Path) -> Path:
    """Return a copy of `data_template`. Adding a user takes longer."""
    return Path(shutil.copytree(data_template, tmp_path / "data"))


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
