"""The first user creates a registry and closes it to others."""

from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.metadata import tables
from tests.cli.moorage import LONG, PASSWORD, Moorage, at
from tests.support.servers.postgres import Cluster
from tests.support.servers.server import Server, serving

pytestmark = pytest.mark.timeout(120)


def test_the_first_user_makes_a_registry_and_is_told_so(tmp_path: Path) -> None:
    moorage = at(tmp_path / "data")
    for command in ("user", "group", "robot", "grant", "key", "audit"):
        assert "no registry in" in moorage.fails(command, "list")
    typed = LONG + "\n"
    # Nothing is created for an invalid name or password.
    assert "invalid user name" in moorage.fails(
        "user", "add", "a/b", "--password-stdin", typed=typed
    )
    assert "no password" in moorage.fails("user", "add", "alice", "--password-stdin")
    assert "no terminal" in moorage.fails("user", "add", "alice")
    assert list(tmp_path.iterdir()) == []
    first = moorage.run("user", "add", "alice", "--admin", "--password-stdin", typed=typed)
    assert first.stdout == "Added alice.\n"
    assert "must sign in" in first.stderr
    assert moorage.run("user", "add", "bob", "--no-password").stderr == ""
    with serving(Server(moorage.folder / "data")) as server:
        assert httpx.get(f"{server.url}/v2/").status_code == 401
        signed_in = httpx.get(f"{server.url}/v2/", auth=("alice", LONG))
        assert signed_in.status_code == 200
    assert "last user" not in moorage.run("user", "remove", "bob").stderr
    assert "last user" in moorage.fails("user", "remove", "alice")


def test_the_first_user_on_postgres(tmp_path: Path, postgres: Cluster) -> None:
    with postgres.database() as url:
        moorage = at(tmp_path / "data")
        moorage.settings["MOORAGE_DATABASE__URL"] = url
        add = ("user", "add", "alice", "--password-stdin")
        assert "auth.secret" in moorage.fails(*add, typed=LONG + "\n")
        moorage.settings["MOORAGE_AUTH__SECRET"] = "0123456789abcdef" * 2
        moorage.run(*add, typed=LONG + "\n")
        assert moorage.json("user", "list")["users"][0]["name"] == "alice"
    with postgres.database(empty=True) as url:
        # In a database without tables, the command creates the schema.
        moorage.settings["MOORAGE_DATABASE__URL"] = url
        moorage.run(*add, typed=LONG + "\n")
        assert moorage.json("user", "list")["users"][0]["name"] == "alice"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(
                tables.schema_version.update().values(version=tables.schema_version.c.version - 1)
            )
        assert "moorage db upgrade" in moorage.fails("user", "list")


def test_the_first_user_closes_a_registry_that_serves(tmp_path: Path) -> None:
    with serving(Server(tmp_path / "data", workers=2)) as server:
        assert httpx.get(f"{server.url}/v2/").status_code == 200
        far = Moorage(tmp_path, ["--url", server.url, "--user", "x"], {"MOORAGE_PASSWORD": "x"})
        assert "moorage user add NAME --admin" in far.fails("user", "list")
        at(server.data).run("user", "add", "root", "--password-stdin", typed=PASSWORD + "\n")
        for _ in range(8):
            with httpx.Client() as fresh:
                assert fresh.get(f"{server.url}/v2/").status_code == 401
