"""Fixtures of the tests of this folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.metadata.engine import migrate
from tests.support.servers.postgres import Cluster


@pytest.fixture
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URLs of the source and the target. A SQLite target has no schema yet."""
    with contextlib.ExitStack() as stack:

        def place(kind: str, name: str) -> str:
            if kind == "sqlite":
                return f"sqlite:///{tmp_path}/{name}.db"
            cluster: Cluster = request.getfixturevalue("postgres")
            return stack.enter_context(cluster.database())

        kinds = getattr(request, "param", "sqlite-postgres").split("-")
        source, target = place(kinds[0], "from"), place(kinds[1], "to")
        migrate.upgrade(source)
        yield source, target
