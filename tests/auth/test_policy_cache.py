"""The current policy: rebuilt after a change, on a thread and not on the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.auth.audit_log import Actor
from registry.auth.credentials.passwords import Passwords
from registry.auth.keys.key_store import FileKeyStore
from registry.auth.keys.keyring import Keyring
from registry.auth.policy import policy_cache as module
from registry.auth.policy.actions import GrantAction, parse_rights
from registry.auth.policy.patterns import RepositoryPattern
from registry.auth.policy.policy import Account, Policy
from registry.auth.policy.policy_cache import PolicyCache
from registry.auth.policy.subjects import Subject
from registry.metadata import tables
from registry.metadata.access import grants
from registry.metadata.access import policy as policy_rows
from registry.metadata.access.policy import PolicyRows
from registry.metadata.content import repositories
from registry.metadata.engine.database import Database
from registry.metadata.engine.transaction import Transaction
from registry.metadata.revisions.watch import RevisionWatch
from registry.oci.names import RepositoryName
from registry.services.access.grants import Grants
from registry.services.access.groups import Groups
from registry.services.access.robots import Robots
from registry.services.access.users import Users
from registry.services.quotas.quotas import Quotas

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Scene:
    """Cached policies over a database, and the IDs of the threads that built one."""

    database: Database
    policies: PolicyCache
    makers: list[int]

    async def change(self) -> None:
        """Raise the revision without recording a change, as older versions do."""
        head = tables.policy_revision
        raised = sa.update(head).values(revision=head.c.revision + 1)
        await self.database.write(lambda tx: tx.execute(raised), actor="")


@pytest.fixture
async def scene(
    database_url: str, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> AsyncIterator[Scene]:
    del anyio_backend
    makers: list[int] = []

    def make(rows: PolicyRows, *, personal_namespaces: bool) -> Policy:
        makers.append(threading.get_ident())
        return Policy(rows, personal_namespaces=personal_namespaces)

    monkeypatch.setattr(module, "Policy", make)
    database = Database(database_url)
    watch = RevisionWatch(database)
    yield Scene(database, PolicyCache(database, watch, personal_namespaces=False), makers)
    watch.close()
    await database.close()


async def test_it_is_made_on_a_thread(scene: Scene) -> None:
    """With tens of thousands of grants it takes a second, and every pull would wait for it."""
    await scene.policies.get()
    await scene.change()
    await scene.policies.get()
    assert len(scene.makers) == 2
    assert threading.get_ident() not in scene.makers


async def test_it_is_made_once_for_all_who_ask(scene: Scene) -> None:
    for count in (1, 2):
        found = await asyncio.gather(*(scene.policies.get() for _ in range(20)))
        assert len(set(map(id, found))) == 1
        assert len(scene.makers) == count
        assert await scene.policies.get() is found[0]
        await scene.change()


OPERATOR = Actor("operator")


def look(policy: Policy) -> dict[str, object]:
    """Return everything that a policy holds."""
    values = dict(vars(policy))
    values["_grants"] = vars(values["_grants"])
    values["_groups"] = {user: sorted(names) for user, names in values["_groups"].items()}
    return values


async def test_what_changed_is_loaded_alone_and_is_as_if_all_were(
    scene: Scene, tmp_path: Path
) -> None:
    """Without incremental loading, each change made every worker load all 10,000 grants."""
    database, policies = scene.database, scene.policies
    keyring = Keyring(database, FileKeyStore(tmp_path / "keys"))
    users, robots = Users(database, keyring, Passwords()), Robots(database, keyring)
    teams = Groups(database)
    rights, quotas = Grants(database, policies), Quotas(database, policies)
    ann, devs = Subject.parse("ann"), Subject.parse("group:devs")
    team, deep = RepositoryPattern.parse("team/**"), RepositoryPattern.parse("team/deep/*")
    pull, push = parse_rights(["pull"]), parse_rights(["push"])
    name = RepositoryName("team/app")
    await policies.get()

    async def remove_repository() -> None:
        await database.write(lambda tx: repositories.ensure(tx, name), actor="")
        removed = await database.read(lambda tx: repositories.find(tx, name))
        assert removed is not None
        await database.write(lambda tx: repositories.delete(tx, removed), actor="")

    steps: list[Callable[[], Awaitable[object]]] = [
        keyring.prepare,
        lambda: users.add("ann", None, OPERATOR),
        lambda: users.add("bob", None, OPERATOR, admin=True),
        lambda: teams.add("devs", OPERATOR),
        lambda: teams.add_member("devs", "ann", OPERATOR),
        lambda: teams.add_member("devs", "bob", OPERATOR),
        lambda: rights.add(ann, team, pull, OPERATOR),
        lambda: rights.add(devs, team, pull, OPERATOR),
        lambda: rights.add(ann, deep, pull, OPERATOR),
        lambda: rights.add(ann, team, push, OPERATOR),
        lambda: rights.remove(ann, team, OPERATOR, pull),
        lambda: rights.remove(ann, deep, OPERATOR),
        lambda: robots.add("ci", None, OPERATOR),
        lambda: robots.rotate("ci", 60.0, OPERATOR),
        lambda: quotas.set("team/**", 1000, OPERATOR),
        remove_repository,
        remove_repository,
        lambda: users.change("ann", OPERATOR, admin=True),
        lambda: teams.remove_member("devs", "ann", OPERATOR),
        lambda: teams.remove("devs", OPERATOR),
        lambda: robots.remove("ci", OPERATOR),
        lambda: users.remove("ann", OPERATOR),
        lambda: quotas.remove("team/**", OPERATOR),
    ]
    for number, step in enumerate(steps):
        before = await policies.get()
        kept = look(before)
        await step()
        now = await policies.get()
        assert len(scene.makers) == 1, number
        rows = await database.read(policy_rows.load)
        assert look(now) == look(Policy(rows, personal_namespaces=False)), number
        assert now.revision > before.revision, number
        assert look(before) == kept, number  # Callers may still use the previous policy.


async def test_much_at_once_is_loaded_as_a_whole(scene: Scene) -> None:
    await scene.policies.get()

    def change(tx: Transaction) -> None:
        for number in range(501):
            grants.put(tx, "ann", f"team/{number}", "pull")

    await scene.database.write(change, actor="")
    policy = await scene.policies.get()
    assert len(scene.makers) == 2
    ann = Account("ann", False, (Subject.parse("ann"),), None, None)
    assert policy.rights(ann, RepositoryName("team/500")) == {GrantAction.PULL}
    # A trimmed change log does not say what changed.
    await scene.database.write(lambda tx: grants.put(tx, "ann", "other", "pull"), actor="")
    everything = sa.delete(tables.policy_changes)
    await scene.database.write(lambda tx: tx.execute(everything), actor="")
    policy = await scene.policies.get()
    assert len(scene.makers) == 3
    assert policy.rights(ann, RepositoryName("other")) == {GrantAction.PULL}
