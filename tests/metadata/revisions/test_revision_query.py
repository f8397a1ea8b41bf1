"""Tests of the revision query on a lost connection."""

import asyncio
import socket
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from registry.metadata.engine.database import Database
from registry.metadata.revisions.query import _QUERY, RevisionQuery
from tests.support.servers.postgres import Cluster

pytestmark = pytest.mark.anyio


class Lost:
    """A connection as libpq leaves it when the server is killed: its socket is closed."""

    def __init__(self) -> None:
        self._here, self.there = socket.socketpair()

    @property
    def socket(self) -> int:
        if self._here.fileno() < 0:
            raise psycopg.OperationalError("the connection is lost")
        return self._here.fileno()

    def is_busy(self) -> bool:
        return True

    def consume_input(self) -> None:
        self._here.close()
        raise psycopg.OperationalError("the server closed the connection")


async def test_a_lost_connection_is_not_watched_on() -> None:
    """Otherwise a client's socket of the same number would never be read."""
    loop = asyncio.get_running_loop()
    lost: Any = Lost()
    number = lost.socket
    lost.there.close()
    with pytest.raises(psycopg.OperationalError):
        await RevisionQuery._next_result(lost)
    assert number not in loop._selector.get_map()  # type: ignore[attr-defined]


COMPILED_FROM = 100_000
"""PostgreSQL's `jit_above_cost`."""


async def test_the_planner_takes_the_question_for_a_small_one(postgres: Cluster) -> None:
    """Without statistics the planner expected millions of rows and compiled the query, in 0.2 s."""
    question = "EXPLAIN (FORMAT JSON) " + _QUERY.replace("$1", "0")
    with postgres.database() as url:
        database = Database(url)
        plan = await database.read(
            lambda tx: tx.connection.exec_driver_sql(question).scalar_one()[0]["Plan"]
        )
        assert plan["Plan Rows"] == 1
        assert plan["Total Cost"] < COMPILED_FROM
        assert await database.read(lambda tx: tx.execute(sa.text("SHOW jit")).scalar_one()) == "off"
        await database.close()
