"""Tests of repository patterns as SQL conditions: they match as patterns do, on both databases."""

import pytest
import sqlalchemy as sa

from registry.auth.policy.patterns import RepositoryPattern
from registry.metadata.content import uploads
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.pattern_filter import EACH, matches_pattern
from registry.metadata.tables import uploads as table
from registry.oci.names import RepositoryName, list_patterns
from tests.metadata.rows import upload

pytestmark = pytest.mark.anyio

NAMES = [
    "team",
    "team/app",
    "team/app/x",
    "team/app/x/y",
    "team/app-2",
    "team/a_p",
    "team-2/app",
    "team.a/app",
    "team0",
    "team0/app",
    "tea/app",
    "0",
    "0/0",
    "z9/z",
]
PATTERNS = ["**", "*", "team", "team/*", "team/**", "team/app", "team/app/*", "team/app/**", "0/*"]
NO_NAME = "(moving)"
"""The name in upload sessions that belong to no repository."""


@pytest.fixture
async def filled(database: Database) -> Database:
    def work(tx: Transaction) -> None:
        for name in [*NAMES, NO_NAME]:
            uploads.insert(tx, upload(name, repository=RepositoryName(name)))

    await database.write(work, actor="ann")
    return database


async def list_within(database: Database, pattern: str) -> set[str]:
    query = sa.select(table.c.id).where(matches_pattern(table.c.repository, pattern))
    return await database.read(lambda tx: set(tx.execute(query).scalars()))


async def test_they_say_the_same_as_grants_of_the_pattern(filled: Database) -> None:
    for pattern in PATTERNS:
        matching = {name for name in NAMES if RepositoryPattern.parse(pattern).matches(name)}
        assert await list_within(filled, pattern) == matching, pattern
    assert await list_within(filled, EACH) == {name for name in NAMES if "/" in name}


def test_the_patterns_of_a_name_are_those_that_match_it() -> None:
    for name in NAMES:
        listed = list_patterns(name)
        assert len(listed) == len(set(listed))
        assert all(RepositoryPattern.parse(pattern).matches(name) for pattern in listed)
        matching = {p for p in PATTERNS if RepositoryPattern.parse(p).matches(name)}
        assert matching <= set(listed)
