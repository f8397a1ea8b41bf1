"""Tests that a PostgreSQL database that is not UTF-8 is refused with its encoding."""

from collections.abc import Iterator

import pytest

from registry.cli.main import main
from registry.errors import SchemaError
from registry.metadata.engine import migrate
from registry.metadata.engine.database import Database
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other(postgres: Cluster, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Yield an encoding, and the URL of a database that has it."""
    encoding: str = request.param
    name = f"moorage_{encoding.lower()}"
    template = f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    postgres.execute(f"CREATE DATABASE {name} {template}")
    yield encoding, postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_an_encoding_that_cannot_hold_all_names_is_refused(other: tuple[str, str]) -> None:
    encoding, url = other
    database = Database(url)
    with pytest.raises(
        SchemaError, match=f"has the encoding {encoding}, but Moorage requires UTF8"
    ):
        await migrate.require_current(database)
    await database.close()
    with pytest.raises(SchemaError, match=encoding):
        migrate.upgrade(url)


def test_a_command_says_what_to_do(
    other: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoding, url = other
    monkeypatch.setenv("MOORAGE_DATABASE__URL", url)
    data = tmp_path_factory.mktemp("data")
    assert main(["db", "upgrade", "--data", str(data)]) == 1
    said = capsys.readouterr().err
    assert f"has the encoding {encoding}" in said
    assert "ENCODING 'UTF8' TEMPLATE template0" in said
    assert "Traceback" not in said


async def test_a_database_in_utf8_is_taken(postgres: Cluster) -> None:
    with postgres.database() as url:
        database = Database(url)
        await migrate.require_current(database)
        await database.close()
