"""Commands on a registry with a database server, from a new data directory each time."""

import os
from pathlib import Path

import pytest

from tests.support.servers import launcher
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.timeout(120)


def moorage(data: Path, url: str, *arguments: str) -> str:
    settings = {
        "MOORAGE_DATABASE__URL": url,
        "MOORAGE_AUTH__SECRET": "x" * 64,
        "MOORAGE_STORAGE__ROOT": str(data.parent / "storage"),
    }
    done = launcher.run(
        *arguments,
        "--data",
        data,
        typed="a password that is long\n",
        env={**os.environ, **settings},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_no_command_needs_what_another_left_in_the_folder(
    postgres: Cluster, tmp_path: Path
) -> None:
    with postgres.database() as url:
        moorage(tmp_path / "one", url, "user", "add", "ann", "--admin", "--password-stdin")
        assert "ann" in moorage(tmp_path / "two", url, "user", "list")
        assert moorage(tmp_path / "three", url, "repo", "list") == ""
        assert "usable" in moorage(tmp_path / "four", url, "db", "status")
