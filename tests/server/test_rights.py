"""A permission revoked by another process ends at once, on all workers and both databases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from registry.app import Runtime, open_runtime
from registry.auth.policy.principals import OPERATOR as OPERATOR_HIMSELF
from registry.config import load
from registry.oci.names import RepositoryName
from storage.digest import Digest
from tests.support.accounts import OPERATOR, Accounts, Login, bearer, get_token, signed
from tests.support.authenticated_server import SETTINGS, alone, client_of
from tests.support.servers.server import Server, serving

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

NAME = "team/app"
DATA = b"a blob of the team"
PATH = f"/v2/{NAME}/blobs/{Digest.of(DATA)}"
PULL = f"repository:{NAME}:pull"
AT_ONCE = 24
WORKERS = 3


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    settings = {**SETTINGS, "MOORAGE_DATABASE__URL": database_url}
    with serving(Server(tmp_path / "data", WORKERS, settings)) as server:
        yield server


@pytest.fixture
async def opened(server: Server) -> AsyncIterator[Runtime]:
    settings = load(config=None, data=server.data, overrides={}, environ=server.settings)
    async with open_runtime(settings) as opened:
        yield opened


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server) as http:
        yield http


async def ask_everybody(server: Server, http: httpx.AsyncClient, token: str) -> set[int]:
    """Return the statuses of all workers: many concurrent requests, then each worker alone."""
    headers = bearer(token)
    answers = await asyncio.gather(*(http.get(PATH, headers=headers) for _ in range(AT_ONCE)))
    statuses = {answer.status_code for answer in answers}
    for pid in server.worker_pids():
        with alone(server, pid):
            for _ in range(2):
                statuses.add((await http.get(PATH, headers=headers)).status_code)
    return statuses


Change = Callable[[], Awaitable[object]]


async def test_what_is_taken_away_is_gone_everywhere(
    server: Server, opened: Runtime, http: httpx.AsyncClient
) -> None:
    accounts, access = Accounts.of(opened), opened.access
    root = await accounts.user("root", admin=True)
    await signed(http, root.basic).push_blob(NAME, DATA)
    await access.groups.add("devs", OPERATOR)
    await accounts.grant("group:devs", NAME, "pull")
    people = [await accounts.user(f"user{number}") for number in range(6)]
    for person in people[:5]:
        await accounts.grant(person.name, "team/**", "pull")
    await access.groups.add_member("devs", people[5].name, OPERATOR)
    robots = [await accounts.robot(f"robot{number}") for number in range(2)]
    for number in range(2):
        await accounts.grant(f"robot:robot{number}", NAME, "pull")
    personal = await accounts.token(people[4].name)
    kept = await get_token(http, root, PULL)

    async def remake_repository() -> None:
        name = RepositoryName.parse(NAME)
        await opened.registry.repositories.delete(name, OPERATOR_HIMSELF)
        await signed(http, root.basic).push_blob(NAME, DATA)

    taken: list[tuple[Login, Change]] = [
        (people[0], lambda: accounts.take(people[0].name, "team/**")),
        (people[1], lambda: access.users.change(people[1].name, OPERATOR, disabled=True)),
        (people[2], lambda: access.users.remove(people[2].name, OPERATOR)),
        (people[3], lambda: access.users.set_password(people[3].name, "another one", OPERATOR)),
        (personal, lambda: access.access_tokens.revoke(personal.name, "laptop", OPERATOR)),
        (people[5], lambda: access.groups.remove_member("devs", people[5].name, OPERATOR)),
        (robots[0], lambda: access.robots.remove("robot0", OPERATOR)),
        (robots[1], lambda: access.robots.rotate("robot1", 0, OPERATOR)),
    ]
    for login, take in taken:
        token = await get_token(http, login, PULL)
        assert await ask_everybody(server, http, token) == {200}
        await take()
        assert await ask_everybody(server, http, token) == {401}, login.name
    assert await ask_everybody(server, http, kept) == {200}
    await remake_repository()
    assert await ask_everybody(server, http, kept) == {401}
    kept = await get_token(http, root, PULL)
    assert await ask_everybody(server, http, kept) == {200}
    await access.keys.rotate(OPERATOR)
    assert await ask_everybody(server, http, kept) == {200}
    new = await get_token(http, root, PULL)
    old_key = (await access.keys.list_all())[0]
    await access.keys.revoke(old_key.kid, OPERATOR)
    assert await ask_everybody(server, http, kept) == {401}
    assert await ask_everybody(server, http, new) == {200}


async def test_while_requests_pour_in(opened: Runtime, http: httpx.AsyncClient) -> None:
    """Every request that starts after the change is acknowledged is refused."""
    accounts = Accounts.of(opened)
    root = await accounts.user("root", admin=True)
    await signed(http, root.basic).push_blob(NAME, DATA)
    login = await accounts.user("alice")
    await accounts.grant("alice", "team/**", "pull")
    token = await get_token(http, login, PULL)
    acknowledged = False
    wrong: list[int] = []
    served = 0

    async def pour() -> None:
        nonlocal served
        for _ in range(40):
            late = acknowledged
            status = (await http.get(PATH, headers=bearer(token))).status_code
            served += status == 200
            if late and status != 401:
                wrong.append(status)

    async def take() -> None:
        nonlocal acknowledged
        await asyncio.sleep(0.15)
        await accounts.take("alice", "team/**")
        acknowledged = True

    await asyncio.gather(take(), *(pour() for _ in range(6)))
    assert served
    assert wrong == []
