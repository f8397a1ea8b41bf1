"""Database URLs: which ones are accepted, and that all readers of URLs agree."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from registry import database_url
from registry.config import load
from registry.errors import ConfigError
from registry.metadata.engine.database import Database, parse_url
from tests.support.servers.postgres import Cluster, free_port

pytestmark = pytest.mark.anyio

PG = "postgresql+psycopg"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("sqlite:////data/moorage.db", "sqlite:////data/moorage.db"),
        ("sqlite+pysqlite:///a/m@x.db", "sqlite:///a/m@x.db"),
        ("postgres://u:p@h/d", f"{PG}://u:p@h/d"),
        ("postgresql://u:p@h:1/d?sslmode=require", f"{PG}://u:p@h:1/d?sslmode=require"),
        ("postgresql://u:p@h:/d", f"{PG}://u:p@h/d"),
        ("postgresql:///d", f"{PG}:///d"),
        ("postgresql://u:p/q?r@h/d", f"{PG}://u:p/q?r@h/d"),
        ("postgresql://[::1]:1/d", f"{PG}://[::1]:1/d"),
        ("postgresql://u@%2Frun%2Fpg/d", f"{PG}://u@/d?host=/run/pg&port=5432"),
        (
            "postgresql://u:p@h1:5432,h2:5433/d",
            f"{PG}://u:p@/d?host=h1,h2&port=5432,5433",
        ),
        (
            "postgres://h1,[::1]:1/d?target_session_attrs=any",
            f"{PG}:///d?target_session_attrs=any&host=h1,::1&port=5432,1",
        ),
    ],
)
def test_urls_that_are_taken_everywhere(tmp_path: Path, text: str, read: str) -> None:
    assert database_url.normalize(text) == read
    assert database_url.normalize(read) == read
    assert parse_url(text) == sa.make_url(read)
    given = load(config=None, data=tmp_path, overrides={"database.url": text}, environ={})
    assert given.database_url == text
    assert Database.is_embedded(text) is read.startswith("sqlite")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sqlite://", "must name a file"),
        ("sqlite:///", "must name a file"),
        ("sqlite+pysqlite:///", "must name a file"),
        ("mysql://u:KEY@h/d", "expected"),
        ("postgresql+asyncpg://u:KEY@h/d", "expected"),
        ("postgresql://u:p@KEY@h/d", "%40"),
        ("postgresql://u:p@KEY/x@h/d", "%40"),
        ("postgresql://u:p@KEY?x@h/d", "%40"),
        ("postgresql://u:KEY/d", "HOST:PORT"),
        ("postgresql://u:p@h:KEY/d", "HOST:PORT"),
        ("postgresql://u:p@h:70000/d", "HOST:PORT"),
        ("postgresql://u:p@h1,h2 KEY/d", "HOST:PORT"),
    ],
)
def test_urls_that_are_refused_everywhere(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as at_load:
        load(config=None, data=tmp_path, overrides={"database.url": text}, environ={})
    with pytest.raises(ConfigError) as at_use:
        parse_url(text)
    for refused in (at_load, at_use):
        assert said in refused.value.message
        assert "KEY" not in refused.value.message
    assert "database.url" in at_load.value.message
    assert "database.url" in at_use.value.message


@given(st.text("/?#@:&=[],%1a", max_size=4), st.text("/?#@:&=[],%1a", max_size=4))
def test_a_password_is_never_taken_for_a_host(before: str, after: str) -> None:
    """PostgreSQL's client prints a host name that it cannot resolve: this must be no password."""
    text = f"postgresql://me:{before}KEY{after}@db/moorage"
    try:
        shown = parse_url(text).render_as_string(hide_password=True)
    except ConfigError as refused:
        shown = refused.message
    assert "KEY" not in shown


def test_several_hosts_reach_the_driver_as_libpq_takes_them() -> None:
    engine = sa.create_engine(parse_url("postgres://u:p@h1,h2:1/d"))
    _, arguments = engine.dialect.create_connect_args(engine.url)
    expected = {
        "user": "u",
        "password": "p",
        "dbname": "d",
        "host": "h1,h2",
        "port": "5432,1",
    }
    assert {name: arguments[name] for name in expected} == expected


async def test_of_several_servers_the_one_that_answers_is_used(postgres: Cluster) -> None:
    with postgres.database() as url:
        own = f":{postgres.port}/"
        several = url.replace(own, f":{free_port()},127.0.0.1{own}")
        database = Database(several)
        assert await database.read(lambda tx: tx.execute(sa.select(1)).scalar_one()) == 1
        await database.close()
