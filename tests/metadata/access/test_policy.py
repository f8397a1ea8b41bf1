"""Every change of the access policy is numbered once."""

import asyncio

import pytest
import sqlalchemy as sa

from registry.metadata.access import (
    policy,
)
from registry.metadata.access.signing_keys import KeyState
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from tests.metadata.access.helpers import (
    CHANGES,
    NO_CHANGES,
    add_user,
    policy_number,
    write,
)
from tests.metadata.rows import (
    add_access,
    void,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", CHANGES)
async def test_every_change_is_numbered_once(database: Database, name: str) -> None:
    await write(database, add_access)
    before = await policy_number(database)
    await write(database, lambda tx: void(CHANGES[name](tx)))
    assert await policy_number(database) == before + 1


@pytest.mark.parametrize("name", NO_CHANGES)
async def test_what_is_no_change_costs_no_number(database: Database, name: str) -> None:
    await write(database, add_access)
    before = await policy_number(database)
    await write(database, lambda tx: void(NO_CHANGES[name](tx)))
    assert await policy_number(database) == before


async def test_all_is_loaded_as_it_is_together(database: Database) -> None:
    await write(database, add_access)
    loaded = await database.read(policy.load)
    assert loaded.revision == await policy_number(database)
    assert [row.name for row in loaded.users] == ["ann"]
    assert loaded.memberships == [("ann", "devs")]
    assert [row.name for row in loaded.robots] == ["ci"]
    assert [(row.id, row.user, row.robot) for row in loaded.secrets] == [("id", None, "ci")]
    assert [(row.subject, row.pattern, row.actions) for row in loaded.grants] == [
        ("ann", "team/**", "pull")
    ]
    assert [(row.kid, row.state) for row in loaded.keys] == [("kid", KeyState.ACTIVE)]
    assert loaded.removals == {}


async def test_a_change_while_it_is_loaded_is_not_mixed_in(database: Database) -> None:
    """On PostgreSQL each query of a transaction sees its own snapshot."""
    await write(database, add_access)
    other = Database(database.url.render_as_string(hide_password=False))
    asked: list[int] = []

    def load(tx: Transaction) -> policy.PolicyRows:
        def change_once(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            if "FROM users" in statement and not asked:
                asked.append(1)
                asyncio.run(other.write(lambda tx: void(add_user(tx, "bob")), actor=""))

        sa.event.listen(tx.connection, "before_cursor_execute", change_once)
        try:
            return policy.load(tx)
        finally:
            sa.event.remove(tx.connection, "before_cursor_execute", change_once)

    loaded = await database.read(load)
    now = await policy_number(database)
    await other.close()
    assert asked
    assert (loaded.revision, len(loaded.users)) in {(now - 1, 1), (now, 2)}
