"""User names: the names of internal actors are refused, and a new user inherits nothing."""

from collections.abc import AsyncIterator

import pytest

from registry.app import Runtime, compose
from registry.auth.policy.actions import GrantAction
from registry.auth.policy.subjects import Subject
from registry.config import load
from registry.errors import AccountNameInvalidError
from registry.metadata.content import repositories
from registry.oci.names import RepositoryName
from tests.support.accounts import AUTH, OPERATOR, Accounts

pytestmark = pytest.mark.anyio

APP = RepositoryName.parse("alice/app")


@pytest.fixture
async def opened(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runtime]:
    overrides = AUTH | {
        "database.url": database_url,
        "storage.driver": "memory",
        "auth.personal_namespaces": "true",
    }
    data = tmp_path_factory.mktemp("names")
    found = compose(load(config=None, data=data, overrides=overrides, environ={}))
    yield found
    await found.close()


async def may_push(opened: Runtime, user: str, name: RepositoryName = APP) -> bool:
    check = opened.access.grants.check
    return (await check(Subject.parse(user), name, frozenset({GrantAction.CREATE}))).allowed


@pytest.mark.parametrize("name", ["gc", "retention", "scrub", "operator", "anonymous", "system"])
async def test_names_of_actors_are_taken(opened: Runtime, name: str) -> None:
    users = opened.access.users
    with pytest.raises(AccountNameInvalidError, match=name):
        await users.add(name, "a good password", OPERATOR)
    assert not await users.is_any()


async def test_names_of_robots_and_groups_are_no_actors(opened: Runtime) -> None:
    """As actors, they are `robot+gc` and `group:gc`."""
    await Accounts.of(opened).user("alice")
    await opened.access.robots.add("gc", None, OPERATOR)
    await opened.access.groups.add("gc", OPERATOR)


async def test_a_user_owns_what_is_below_her_name(opened: Runtime) -> None:
    await Accounts.of(opened).user("alice")
    assert await may_push(opened, "alice")


async def test_a_new_user_of_an_old_name_does_not_own_what_was_left(opened: Runtime) -> None:
    accounts = Accounts.of(opened)
    await accounts.user("root", admin=True)
    await accounts.user("alice")
    await opened.database.write(lambda tx: repositories.ensure(tx, APP), actor="alice")
    await opened.access.users.remove("alice", OPERATOR)
    await accounts.user("alice")
    assert not await may_push(opened, "alice")
    assert not await may_push(opened, "alice", RepositoryName.parse("alice/other"))
    # A name that only shares a prefix is not below the other name.
    await accounts.user("ali")
    assert await may_push(opened, "ali", RepositoryName.parse("ali/app"))
    await accounts.grant("alice", "alice/**", "pull,push")
    assert await may_push(opened, "alice")
