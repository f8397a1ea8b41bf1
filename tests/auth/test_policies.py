"""The policy in force: made anew when it changed, and not by the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from registry.auth import policies as module
from registry.auth.policies import Policies
from registry.auth.policy import Policy
from registry.metadata import groups
from registry.metadata.database import Database
from registry.metadata.policy import PolicyRows
from registry.metadata.watch import Watch

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@dataclass(frozen=True)
class Scene:
    """Policies over a database, and the threads that have made one."""

    database: Database
    policies: Policies
    makers: list[int]

    async def change(self) -> None:
        await self.database.write(lambda tx: tx.change_policy(), actor="")


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
    watch = Watch(database)
    yield Scene(database, Policies(database, watch, personal_namespaces=False), makers)
    watch.close()
    await database.close()


async def test_it_is_made_on_a_thread(scene: Scene) -> None:
    """Of tens of thousands of grants it takes a second, for which every pull would wait."""
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
        await scene.database.write(lambda tx: groups.insert(tx, "devs"), actor="")
